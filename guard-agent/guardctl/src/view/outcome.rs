use guard_api::proto;
use serde::Serialize;

use super::{Lease, lease, word};
use crate::output::{Screen, View};

/// What became of `confirm` or `bind`.
#[derive(Debug, Serialize)]
pub struct Changed {
    pub outcome: Option<String>,
    pub lease: Option<Lease>,
}

impl From<proto::ConfirmResponse> for Changed {
    fn from(response: proto::ConfirmResponse) -> Self {
        let outcome = outcome(response.outcome());
        Self { outcome, lease: response.lease.map(Lease::from) }
    }
}

impl From<proto::BindResponse> for Changed {
    fn from(response: proto::BindResponse) -> Self {
        let outcome = outcome(response.outcome());
        Self { outcome, lease: response.lease.map(Lease::from) }
    }
}

impl View for Changed {
    fn text(&self, screen: Screen) -> String {
        let lease = self.lease.as_ref().map(|lease| lease.text(screen)).unwrap_or_default();
        format!("{}\n{lease}", sentence(self.outcome.as_deref()))
    }
}

/// What became of `release`.
#[derive(Debug, Serialize)]
pub struct Released {
    pub outcome: Option<String>,
    pub leases: Vec<Lease>,
}

impl From<proto::ReleaseResponse> for Released {
    fn from(response: proto::ReleaseResponse) -> Self {
        let outcome = outcome(response.outcome());
        Self { outcome, leases: response.leases.into_iter().map(Lease::from).collect() }
    }
}

impl View for Released {
    fn text(&self, screen: Screen) -> String {
        let mut text = format!("{}\n", sentence(self.outcome.as_deref()));
        if !self.leases.is_empty() {
            text.push_str(&lease::table(&self.leases, screen));
        }
        text
    }
}

pub fn outcome(outcome: proto::Outcome) -> Option<String> {
    word(outcome.as_str_name(), "OUTCOME_")
}

/// The outcome, and what it means.
pub fn sentence(outcome: Option<&str>) -> String {
    let meaning = match outcome.unwrap_or_default() {
        "releasing" => "given back, and still in use: it is not handed out until that ends",
        "cooling" => "given back and gone; handed out again once it has cooled down",
        "stale" => "the lease has another generation or owner by now; nothing was changed",
        "not_found" => "there is no such lease; nothing was changed",
        word => return word.to_owned(),
    };
    format!("{}: {meaning}", outcome.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            lease::tests::{ACTIVE, active},
            testing::{golden, shown},
        },
        *,
    };

    #[test]
    fn confirm_and_bind_as_json() {
        let done =
            proto::BindResponse { outcome: proto::Outcome::Done.into(), lease: Some(active()) };
        let json = format!(r#"{{"outcome":"done","lease":{ACTIVE}}}"#);
        golden(&Changed::from(done), &json);
        let stale = proto::ConfirmResponse { outcome: proto::Outcome::Stale.into(), lease: None };
        golden(&Changed::from(stale), r#"{"outcome":"stale","lease":null}"#);
    }

    #[test]
    fn release_as_json_and_text() {
        let releasing = proto::ReleaseResponse {
            outcome: proto::Outcome::Releasing.into(),
            leases: vec![active()],
            total_size: 1,
        };
        let released = Released::from(releasing);
        golden(&released, &format!(r#"{{"outcome":"releasing","leases":[{ACTIVE}]}}"#));
        let text = shown(&released);
        assert!(text.starts_with("releasing: given back, and still in use"), "{text}");
        let nothing = proto::ReleaseResponse {
            outcome: proto::Outcome::NotFound.into(),
            ..Default::default()
        };
        golden(&Released::from(nothing), r#"{"outcome":"not_found","leases":[]}"#);
    }
}
