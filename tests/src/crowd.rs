//! Many ports at once.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::{
    agent::Agent,
    api::Client,
    frame::Mac,
    lab::{BRIDGE, Lab, POOL},
    netns::Netns,
    raw_socket::RawSocket,
    sandbox::Sandbox,
};

/// Ports of [`BRIDGE`] whose far ends are all in one namespace, which takes a fraction of the time
/// that as many sandboxes do.
#[derive(Debug)]
pub struct Crowd {
    far: Sandbox,
    ports: usize,
}

impl Lab {
    /// Adds so many ports.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn crowd(&self, ports: usize) -> Result<Crowd> {
        let far = self.sandbox("far")?;
        let mut commands = String::new();
        for number in 0..ports {
            let netns = far.netns().name();
            writeln!(
                commands,
                "link add crowd{number} type veth peer name far{number} netns {netns}"
            )?;
            writeln!(commands, "link set crowd{number} master {BRIDGE} up")?;
        }
        self.host().ip(&commands)?;
        let up: String = (0..ports).map(|number| format!("link set far{number} up\n")).collect();
        far.netns().ip(&up)?;
        Ok(Crowd { far, ports })
    }
}

impl Crowd {
    /// The name of a port; they are counted from 0, and begin anew after the last.
    #[must_use]
    pub fn port(&self, number: usize) -> String {
        format!("crowd{}", number % self.ports)
    }

    /// The namespace of the far ends.
    #[must_use]
    pub fn far(&self) -> &Netns {
        self.far.netns()
    }

    /// A MAC that nobody of the lab has.
    ///
    /// # Errors
    /// There are not as many.
    pub fn mac(number: usize) -> Result<Mac> {
        Ok(Mac::numbered(0x0010_0000 + u32::try_from(number)?))
    }

    /// Leases by declared MACs, spread over the ports; nobody of them says a word.
    ///
    /// # Errors
    /// The agent gives fewer.
    pub fn lease(&self, agent: &Agent, leases: usize) -> Result<Vec<Ipv4Addr>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut client = Client::connect(&agent.socket()).await?;
            let mut leased = Vec::with_capacity(leases);
            for number in 0..leases {
                let (mac, port) = (Self::mac(number)?, self.port(number));
                let asker = (&*format!("owner-{port}"), &*number.to_string());
                let leases = client.allocate_bound(&[POOL], asker, mac, &port).await?;
                leased.push(leases.first().context("no lease")?.address.parse()?);
            }
            Ok(leased)
        })
    }

    /// A packet socket on the far end of a port.
    ///
    /// # Errors
    /// It is gone.
    pub fn raw_socket(&self, number: usize) -> Result<RawSocket> {
        RawSocket::open(self.far(), &format!("far{}", number % self.ports))
    }
}
