use guard_api::proto;
use jiff::Timestamp;
use serde::Serialize;

use super::{operator::dry, outcome::outcome, segment, text, time};
use crate::{
    output::{Screen, View},
    table::{Table, cell},
};

/// The outcome of a release, for people.
fn done(outcome: &Option<String>) -> String {
    match outcome.as_deref().unwrap_or_default() {
        "not_found" => "not_found: it is not reserved; nothing was changed\n".to_owned(),
        word => format!("{word}\n"),
    }
}

/// A prefix that was carved out of a pool.
#[derive(Debug, Serialize)]
pub struct Subnet {
    pub prefix: Option<String>,
    pub id: Option<String>,
    pub pool: Option<String>,
    pub bridge: Option<String>,
    pub vlan: u32,
    pub created_at: Option<Timestamp>,
}

impl From<proto::Subnet> for Subnet {
    fn from(subnet: proto::Subnet) -> Self {
        let proto::Subnet { prefix, id, pool, bridge, vlan, created_at } = subnet;
        Self {
            prefix: text(prefix),
            id: text(id),
            pool: text(pool),
            bridge: text(bridge),
            vlan,
            created_at: time(created_at),
        }
    }
}

fn subnets<'a>(subnets: impl IntoIterator<Item = &'a Subnet>, screen: Screen) -> String {
    let mut table = Table::new(&["SUBNET", "POOL", "BRIDGE", "ID"], &["ID"]);
    for subnet in subnets {
        let cells = [
            cell(subnet.prefix.as_deref()),
            cell(subnet.pool.as_deref()),
            cell(Some(&segment(subnet.bridge.as_deref(), subnet.vlan))),
            cell(subnet.id.as_deref()),
        ];
        table.row(cells, vec![]);
    }
    table.text(screen, "no child subnets")
}

/// What `subnets reserve` gives.
#[derive(Debug, Serialize)]
pub struct ReservedSubnet {
    #[serde(flatten)]
    pub subnet: Option<Subnet>,
    pub dry_run: bool,
}

impl ReservedSubnet {
    pub fn new(response: proto::ReserveSubnetResponse, dry_run: bool) -> Self {
        Self { subnet: response.subnet.map(Subnet::from), dry_run }
    }
}

impl View for ReservedSubnet {
    fn text(&self, screen: Screen) -> String {
        format!("{}{}", dry(self.dry_run), subnets(&self.subnet, screen))
    }
}

/// What became of `subnets release`.
#[derive(Debug, Serialize)]
pub struct ReleasedSubnet {
    pub dry_run: bool,
    pub outcome: Option<String>,
    pub subnet: Option<Subnet>,
}

impl ReleasedSubnet {
    pub fn new(response: proto::ReleaseSubnetResponse, dry_run: bool) -> Self {
        let outcome = outcome(response.outcome());
        Self { dry_run, outcome, subnet: response.subnet.map(Subnet::from) }
    }
}

impl View for ReleasedSubnet {
    fn text(&self, screen: Screen) -> String {
        let subnet = self.subnet.as_ref().map(|subnet| subnets([subnet], screen));
        format!("{}{}{}", dry(self.dry_run), done(&self.outcome), subnet.unwrap_or_default())
    }
}

/// All child subnets.
#[derive(Debug, Serialize)]
pub struct Subnets {
    pub subnets: Vec<Subnet>,
}

impl From<proto::ListSubnetsResponse> for Subnets {
    fn from(list: proto::ListSubnetsResponse) -> Self {
        Self { subnets: list.subnets.into_iter().map(Subnet::from).collect() }
    }
}

impl View for Subnets {
    fn text(&self, screen: Screen) -> String {
        subnets(&self.subnets, screen)
    }
}

/// A name that is reserved for an interface.
#[derive(Debug, Serialize)]
pub struct Interface {
    pub name: Option<String>,
    pub prefix: Option<String>,
    pub id: Option<String>,
    pub exists: bool,
    pub created_at: Option<Timestamp>,
}

impl From<proto::InterfaceName> for Interface {
    fn from(interface: proto::InterfaceName) -> Self {
        let proto::InterfaceName { name, prefix, id, exists, created_at } = interface;
        let (name, prefix, id) = (text(name), text(prefix), text(id));
        Self { name, prefix, id, exists, created_at: time(created_at) }
    }
}

fn interfaces<'a>(names: impl IntoIterator<Item = &'a Interface>, screen: Screen) -> String {
    let mut table = Table::new(&["INTERFACE", "EXISTS", "ID"], &["ID"]);
    for name in names {
        let exists = if name.exists { "yes" } else { "no" };
        let cells = [cell(name.name.as_deref()), cell(Some(exists)), cell(name.id.as_deref())];
        table.row(cells, vec![]);
    }
    table.text(screen, "no interface names are reserved")
}

/// What `interfaces reserve` gives.
#[derive(Debug, Serialize)]
pub struct ReservedInterface {
    #[serde(flatten)]
    pub interface: Option<Interface>,
    pub dry_run: bool,
}

impl ReservedInterface {
    pub fn new(response: proto::ReserveInterfaceResponse, dry_run: bool) -> Self {
        Self { interface: response.interface.map(Interface::from), dry_run }
    }
}

impl View for ReservedInterface {
    fn text(&self, screen: Screen) -> String {
        format!("{}{}", dry(self.dry_run), interfaces(&self.interface, screen))
    }
}

/// What became of `interfaces release`.
#[derive(Debug, Serialize)]
pub struct ReleasedInterface {
    pub dry_run: bool,
    pub outcome: Option<String>,
    pub interface: Option<Interface>,
}

impl ReleasedInterface {
    pub fn new(response: proto::ReleaseInterfaceResponse, dry_run: bool) -> Self {
        let outcome = outcome(response.outcome());
        Self { dry_run, outcome, interface: response.interface.map(Interface::from) }
    }
}

impl View for ReleasedInterface {
    fn text(&self, screen: Screen) -> String {
        let name = self.interface.as_ref().map(|name| interfaces([name], screen));
        format!("{}{}{}", dry(self.dry_run), done(&self.outcome), name.unwrap_or_default())
    }
}

/// All names that are reserved.
#[derive(Debug, Serialize)]
pub struct Interfaces {
    pub interfaces: Vec<Interface>,
}

impl From<proto::ListInterfacesResponse> for Interfaces {
    fn from(list: proto::ListInterfacesResponse) -> Self {
        Self { interfaces: list.interfaces.into_iter().map(Interface::from).collect() }
    }
}

impl View for Interfaces {
    fn text(&self, screen: Screen) -> String {
        interfaces(&self.interfaces, screen)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{golden, shown},
        *,
    };

    fn subnet() -> proto::Subnet {
        proto::Subnet {
            prefix: "10.8.64.16/28".to_owned(),
            id: "node-a".to_owned(),
            pool: "sandboxes".to_owned(),
            bridge: "rt0".to_owned(),
            vlan: 0,
            created_at: None,
        }
    }

    #[test]
    fn subnets_as_json_and_text() {
        let list = Subnets::from(proto::ListSubnetsResponse {
            subnets: vec![subnet()],
            ..Default::default()
        });
        golden(
            &list,
            r#"{"subnets":[{"prefix":"10.8.64.16/28","id":"node-a","pool":"sandboxes",
            "bridge":"rt0","vlan":0,"created_at":null}]}"#,
        );
        assert_eq!(
            shown(&list),
            "SUBNET         POOL       BRIDGE  ID\n\
             10.8.64.16/28  sandboxes  rt0     node-a\n"
        );
    }

    #[test]
    fn a_reserved_subnet_is_the_document() {
        let response = proto::ReserveSubnetResponse { subnet: Some(subnet()) };
        let reserved = ReservedSubnet::new(response, true);
        golden(
            &reserved,
            r#"{"prefix":"10.8.64.16/28","id":"node-a","pool":"sandboxes","bridge":"rt0",
            "vlan":0,"created_at":null,"dry_run":true}"#,
        );
        assert!(shown(&reserved).starts_with("dry run: nothing was changed\n"));
    }

    #[test]
    fn a_name_as_json_and_text() {
        let name = proto::InterfaceName {
            name: "veth0".to_owned(),
            prefix: "veth".to_owned(),
            id: "web-1".to_owned(),
            exists: true,
            created_at: None,
        };
        let list = Interfaces::from(proto::ListInterfacesResponse {
            interfaces: vec![name],
            ..Default::default()
        });
        golden(
            &list,
            r#"{"interfaces":[{"name":"veth0","prefix":"veth","id":"web-1","exists":true,
            "created_at":null}]}"#,
        );
        assert_eq!(shown(&list), "INTERFACE  EXISTS  ID\nveth0      yes     web-1\n");
    }
}
