//! Child subnets and interface names.

use clap::{ArgGroup, Args, Subcommand};
use guard_api::{
    client::answer,
    pages,
    proto::{
        ListInterfacesRequest, ListSubnetsRequest, ReleaseInterfaceRequest, ReleaseSubnetRequest,
        ReserveInterfaceRequest, ReserveSubnetRequest, interfaces_client::InterfacesClient,
        subnets_client::SubnetsClient,
    },
};
use ipnet::IpNet;
use tonic::transport::Channel;

use crate::{
    cli::prefix,
    error::Error,
    output::Output,
    view::{Answer, Reserved},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Subnets {
    /// Carve the lowest free prefix of a length, or a given one, out of a pool.
    ///
    /// Asking again with the same identifier gives the same subnet.
    #[command(after_help = "Examples:\n  \
        guardctl subnets reserve --pool sandboxes --id node-a --length 28\n  \
        guardctl subnets reserve --pool sandboxes --id node-b --prefix 10.8.64.32/28")]
    Reserve(ReserveSubnet),
    /// Give a child subnet's addresses back to its pool.
    ///
    /// What is in use in it is quarantined.
    #[command(after_help = "Examples:\n  guardctl subnets release --prefix 10.8.64.16/28\n  \
        guardctl subnets release --id node-a")]
    Release(ReleaseSubnet),
    /// List the child subnets.
    #[command(after_help = "Example:\n  guardctl subnets list --pool sandboxes -o json")]
    List {
        /// Only those of this pool.
        #[arg(long)]
        pool: Option<String>,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("size").args(["length", "prefix"]).required(true).multiple(true))]
pub struct ReserveSubnet {
    /// The parent.
    #[arg(long)]
    pool: String,
    /// Who it is for; one identifier has one subnet.
    #[arg(long)]
    id: String,
    /// The length of the prefix.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=128))]
    length: Option<u8>,
    /// Ask for this prefix.
    #[arg(long, value_parser = prefix)]
    prefix: Option<IpNet>,
    /// Change nothing and say what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["id", "prefix"]).required(true))]
pub(crate) struct ReleaseSubnet {
    /// The prefix.
    #[arg(long, value_parser = prefix)]
    prefix: Option<IpNet>,
    /// Who it was for.
    #[arg(long)]
    id: Option<String>,
    /// The parent, where several pools have a subnet with the prefix.
    #[arg(long, requires = "prefix")]
    pool: Option<String>,
    /// Change nothing and say what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Interfaces {
    /// Reserve the lowest free name with a prefix, which no interface has either.
    ///
    /// Asking again with the same prefix and identifier gives the same name.
    #[command(after_help = "Example:\n  guardctl interfaces reserve --prefix veth --id web-1")]
    Reserve {
        /// What the name begins with; a number follows.
        #[arg(long)]
        prefix: String,
        /// Who it is for.
        #[arg(long)]
        id: String,
        /// Change nothing and say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Give a name back.
    #[command(after_help = "Example:\n  guardctl interfaces release veth0")]
    Release {
        /// The name.
        name: String,
        /// Change nothing and say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the names that are reserved.
    #[command(after_help = "Example:\n  guardctl interfaces list -o json")]
    List,
}

impl Subnets {
    pub(crate) async fn run(self, channel: Channel, output: Output) -> Result<(), Error> {
        let mut subnets = SubnetsClient::new(channel.clone());
        match self {
            Self::Reserve(args) => {
                let request = ReserveSubnetRequest::from(args);
                let dry_run = request.dry_run;
                let reserved = answer(subnets.reserve(request)).await?.subnet;
                output.print(&Reserved { reserved, dry_run })
            }
            Self::Release(ReleaseSubnet { prefix, id, pool, dry_run }) => {
                let request = ReleaseSubnetRequest {
                    prefix: prefix.map(|prefix| prefix.to_string()).unwrap_or_default(),
                    id: id.unwrap_or_default(),
                    pool: pool.unwrap_or_default(),
                    dry_run,
                };
                let response = answer(subnets.release(request)).await?;
                output.print(&Answer { dry_run, response })
            }
            Self::List { pool } => {
                let pool = pool.unwrap_or_default();
                let request = ListSubnetsRequest { pool, ..ListSubnetsRequest::default() };
                output.print(&pages::all(&channel, request).await?)
            }
        }
    }
}

impl Interfaces {
    pub(crate) async fn run(self, channel: Channel, output: Output) -> Result<(), Error> {
        let mut interfaces = InterfacesClient::new(channel.clone());
        match self {
            Self::Reserve { prefix, id, dry_run } => {
                let request = ReserveInterfaceRequest { prefix, id, dry_run };
                let reserved = answer(interfaces.reserve(request)).await?.interface;
                output.print(&Reserved { reserved, dry_run })
            }
            Self::Release { name, dry_run } => {
                let request = ReleaseInterfaceRequest { name, dry_run };
                let response = answer(interfaces.release(request)).await?;
                output.print(&Answer { dry_run, response })
            }
            Self::List => {
                output.print(&pages::all(&channel, ListInterfacesRequest::default()).await?)
            }
        }
    }
}

impl From<ReserveSubnet> for ReserveSubnetRequest {
    fn from(ReserveSubnet { pool, id, length, prefix, dry_run }: ReserveSubnet) -> Self {
        Self {
            pool,
            id,
            length: length.map_or(0, u32::from),
            prefix: prefix.map(|prefix| prefix.to_string()).unwrap_or_default(),
            dry_run,
        }
    }
}
