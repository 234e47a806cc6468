use guard_api::proto::{self, Outcome};
use serde::Serialize;

use super::{Answer, head, segment};
use crate::{
    output::{Screen, View},
    table::{Table, cell},
};

/// What was reserved, or would be.
#[derive(Debug, Serialize)]
pub(crate) struct Reserved<T> {
    #[serde(flatten)]
    pub reserved: Option<T>,
    pub dry_run: bool,
}

impl View for Reserved<proto::Subnet> {
    fn text(&self, screen: Screen) -> String {
        head(self.dry_run).to_owned() + &subnets(self.reserved.as_slice(), screen)
    }
}

impl View for Reserved<proto::InterfaceName> {
    fn text(&self, screen: Screen) -> String {
        head(self.dry_run).to_owned() + &interfaces(self.reserved.as_slice(), screen)
    }
}

impl View for Answer<proto::ReleaseSubnetResponse> {
    fn text(&self, screen: Screen) -> String {
        let subnet = self.response.subnet.as_ref();
        let subnet = subnet.map(|subnet| subnets(std::slice::from_ref(subnet), screen));
        let subnet = subnet.unwrap_or_default();
        format!("{}{}{subnet}", head(self.dry_run), done(self.response.outcome()))
    }
}

impl View for Answer<proto::ReleaseInterfaceResponse> {
    fn text(&self, screen: Screen) -> String {
        let name = self.response.interface.as_ref();
        let name = name.map(|name| interfaces(std::slice::from_ref(name), screen));
        let name = name.unwrap_or_default();
        format!("{}{}{name}", head(self.dry_run), done(self.response.outcome()))
    }
}

impl View for proto::ListSubnetsResponse {
    fn text(&self, screen: Screen) -> String {
        subnets(&self.subnets, screen)
    }
}

impl View for proto::ListInterfacesResponse {
    fn text(&self, screen: Screen) -> String {
        interfaces(&self.interfaces, screen)
    }
}

/// The outcome of a release, for people.
fn done(outcome: Outcome) -> String {
    match outcome {
        Outcome::NotFound => "not_found: it is not reserved; nothing was changed\n".to_owned(),
        outcome => format!("{}\n", outcome.word()),
    }
}

fn subnets(subnets: &[proto::Subnet], screen: Screen) -> String {
    let mut table = Table::new(&["SUBNET", "POOL", "BRIDGE", "ID"], &["ID"]);
    for subnet in subnets {
        let bridge = segment(&subnet.bridge, subnet.vlan);
        let cells = [cell(&subnet.prefix), cell(&subnet.pool), cell(&bridge), cell(&subnet.id)];
        table.row(cells, vec![]);
    }
    table.text(screen, "no child subnets")
}

fn interfaces(names: &[proto::InterfaceName], screen: Screen) -> String {
    let mut table = Table::new(&["INTERFACE", "EXISTS", "ID"], &["ID"]);
    for name in names {
        let exists = if name.exists { "yes" } else { "no" };
        table.row([cell(&name.name), cell(exists), cell(&name.id)], vec![]);
    }
    table.text(screen, "no interface names are reserved")
}

#[cfg(test)]
mod tests {
    use super::{super::testing::shown, *};

    fn subnet() -> proto::Subnet {
        proto::Subnet {
            prefix: "10.8.64.16/28".to_owned(),
            id: "node-a".to_owned(),
            pool: "sandboxes".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            created_at: None,
            maker: None,
        }
    }

    #[test]
    fn subnets_as_text() {
        let table = "SUBNET         POOL       BRIDGE  ID\n\
                     10.8.64.16/28  sandboxes  rt0     node-a\n";
        let subnets = vec![subnet()];
        assert_eq!(shown(&proto::ListSubnetsResponse { subnets, ..Default::default() }), table);
        let reserved = Reserved { reserved: Some(subnet()), dry_run: true };
        assert_eq!(shown(&reserved), format!("dry run: nothing was changed\n{table}"));
    }

    #[test]
    fn names_as_text() {
        let name = proto::InterfaceName {
            name: "veth0".to_owned(),
            prefix: "veth".to_owned(),
            id: "web-1".to_owned(),
            exists: true,
            created_at: None,
            maker: None,
        };
        let interfaces = vec![name];
        let list = proto::ListInterfacesResponse { interfaces, ..Default::default() };
        assert_eq!(shown(&list), "INTERFACE  EXISTS  ID\nveth0      yes     web-1\n");
    }
}
