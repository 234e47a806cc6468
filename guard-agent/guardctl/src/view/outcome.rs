use guard_api::proto::{self, Outcome};

use super::{Answer, head, lease};
use crate::output::{Screen, View};

impl View for proto::ConfirmResponse {
    fn text(&self, screen: Screen) -> String {
        changed(self.outcome(), self.lease.as_slice(), screen)
    }
}

impl View for proto::BindResponse {
    fn text(&self, screen: Screen) -> String {
        changed(self.outcome(), self.lease.as_slice(), screen)
    }
}

impl View for proto::ReleaseResponse {
    fn text(&self, screen: Screen) -> String {
        changed(self.outcome(), &self.leases, screen)
    }
}

/// What became of `force-release`.
impl View for Answer<proto::ReleaseResponse> {
    fn text(&self, screen: Screen) -> String {
        head(self.dry_run).to_owned() + &self.response.text(screen)
    }
}

/// What became of `quarantine add` and `remove`.
impl View for Answer<proto::QuarantineResponse> {
    fn text(&self, screen: Screen) -> String {
        let (outcome, leases) = (self.response.outcome(), &self.response.leases);
        let shown = match outcome {
            Outcome::NotFound => {
                "not_found: no operator has quarantined it; nothing was changed\n".to_owned()
            }
            outcome => changed(outcome, leases, screen),
        };
        head(self.dry_run).to_owned() + &shown
    }
}

/// The outcome, and the leases that have changed.
fn changed(outcome: Outcome, leases: &[proto::Lease], screen: Screen) -> String {
    let table = if leases.is_empty() { String::new() } else { lease::table(leases, screen) };
    format!("{}\n{table}", sentence(outcome))
}

/// The outcome, and what it means.
fn sentence(outcome: Outcome) -> String {
    let word = outcome.word();
    let meaning = match outcome {
        Outcome::Releasing => "given back, and still in use: it is not handed out until that ends",
        Outcome::Cooling => "given back and gone; handed out again once it has cooled down",
        Outcome::Stale => "the lease has another generation or owner by now; nothing was changed",
        Outcome::NotFound => "there is no such lease; nothing was changed",
        Outcome::Done | Outcome::Unspecified => return word.to_owned(),
    };
    format!("{word}: {meaning}")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{lease::tests::active, testing::shown},
        *,
    };

    #[test]
    fn an_outcome_says_what_it_means() {
        let releasing = proto::ReleaseResponse {
            outcome: Outcome::Releasing.into(),
            leases: vec![active()],
            total_size: 1,
        };
        let text = shown(&releasing);
        assert!(text.starts_with("releasing: given back, and still in use"), "{text}");
        assert!(text.contains("web-1"), "{text}");
    }

    #[test]
    fn what_is_in_no_quarantine_is_not_said_to_be_no_lease() {
        let outcome = Outcome::NotFound.into();
        let response = proto::QuarantineResponse { outcome, ..Default::default() };
        assert_eq!(
            shown(&Answer { dry_run: false, response }),
            "not_found: no operator has quarantined it; nothing was changed\n"
        );
    }
}
