//! Lists have pages: whatever grows with the leases can be read by a client with gRPC's usual limits,
//! to its end and without a row twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use guard_api::client::{CallError, connect};
use guard_api::pages::{self, Page as _, Request};
use guard_api::proto::{
    AllocateRequest, ConflictsRequest, GcRequest, LeaseState, ListInterfacesRequest,
    ListLeasesRequest, ListLeasesResponse, ListPoolsRequest, ListSubnetsRequest, LiveRequest,
    Owner, PortsRequest, QuarantineAction, QuarantineRequest, ReconcileRequest, WatchRequest,
    leases_client::LeasesClient,
};
use guard_tests::{Agent, BRIDGE, Client, Lab, Launch, POOL, Peer, Sandbox, eventually};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::prost::Message as _;
use tonic_types::StatusExt as _;

/// More than fit into any client's 4 MiB.
const MANY: u32 = 45_000;

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[test]
fn rule_14_a_client_with_the_usual_limit_reads_45000_leases() -> Result<()> {
    let lab = Lab::with_prefix(16)?;
    lab.fill(MANY)?;
    let agent = lab.agent()?;
    let wanted = usize::try_from(MANY)?;

    let read = runtime()?.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        client.leases().await.context("all leases")
    })?;
    let addresses: Vec<Ipv4Addr> =
        read.iter().map(|lease| lease.address.parse()).collect::<Result<_, _>>()?;
    assert_eq!(addresses.len(), wanted);
    assert!(addresses.is_sorted_by(|one, next| one < next), "in order, and none twice");

    let listed = agent.list(&["leases"], "leases")?;
    let address = |lease: &Value| lease["address"].as_str().map(str::to_owned);
    assert!(listed.iter().map(address).eq(read.iter().map(|lease| Some(lease.address.clone()))));

    let found = Peer::new(&agent)?.call(&["leases"])?;
    let by_peer = found["addresses"].as_array().context("no list")?;
    assert!(by_peer.iter().eq(listed.iter().map(|lease| &lease["address"])), "Python's list");
    assert_eq!(found["pages"], 45, "a thousand rows each, where nobody says how many");
    assert!(found["largest"].as_u64().is_some_and(|bytes| bytes < 1 << 20), "{}", found["largest"]);

    // Nobody speaks for them, and nobody could; but one has the host's own address.
    let silent = |lease: &&Value| lease["evidence"].as_array().is_some_and(Vec::is_empty);
    let silent: Vec<_> = listed.iter().filter(silent).map(address).collect();
    assert!(silent.len() >= wanted - 1, "{} leases are silent", silent.len());
    for command in ["reconcile", "gc"] {
        let found = agent.list(&[command, "--dry-run"], "unverifiable")?;
        assert!(found.iter().map(address).eq(silent.iter().cloned()), "{command}");
    }
    let pool = agent.list(&["pools"], "pools")?.pop().context("no pool")?;
    assert_eq!(pool["active"], MANY);
    agent.stop()
}

#[test]
fn rule_14_who_asks_for_no_page_gets_what_fits_and_is_told_that_there_is_more() -> Result<()> {
    let lab = Lab::with_prefix(20)?;
    lab.fill(2500)?;
    let mut agent = lab.agent()?;
    let runtime = runtime()?;
    let first = runtime.block_on(list(&agent, ListLeasesRequest::default()))?;
    assert_eq!(first.leases.len(), 1000);
    let request = |token: &str| ListLeasesRequest {
        page_size: 2000,
        page_token: token.to_owned(),
        ..ListLeasesRequest::default()
    };
    // The token is all that is known of it: it is good for the agent's next run.
    agent.stop()?;
    agent.start_again()?;
    let rest = runtime.block_on(list(&agent, request(&first.next_page_token)))?;
    assert_eq!((rest.leases.len(), rest.next_page_token.as_str()), (1500, ""));
    assert_eq!(rest.seq, first.seq, "what has changed since is told from the first page on");
    let addresses: BTreeSet<_> =
        first.leases.iter().chain(&rest.leases).map(|lease| &lease.address).collect();
    assert_eq!(addresses.len(), 2500);
    // An earlier run's events are not held: the state is to be read anew.
    let event = runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        let mut events = client.watch("", Some(first.seq)).await?;
        events.message().await?.context("no event")
    })?;
    assert_eq!(event.r#type, "gap");
    Ok(())
}

/// As many and as long as a lease can have.
fn most_labels() -> HashMap<String, String> {
    (0..64).map(|number| (format!("{number:063}"), "x".repeat(253))).collect()
}

#[test]
fn rule_14_long_rows_make_short_pages() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut client = LeasesClient::new(connect(&agent.socket()).await?);
        for number in 0..120 {
            let owner = Owner { sandbox: format!("s{number}"), ..Owner::default() };
            let request = AllocateRequest {
                pools: vec![POOL.to_owned()],
                owner: Some(owner),
                labels: most_labels(),
                ..AllocateRequest::default()
            };
            client.allocate(request).await?;
        }
        anyhow::Ok(())
    })?;
    let (mut seen, mut request, mut pages) = (BTreeSet::new(), ListLeasesRequest::default(), 0);
    loop {
        let page = runtime.block_on(list(&agent, request.clone()))?;
        ensure!(page.encoded_len() < (1 << 20) + (64 << 10), "{} bytes", page.encoded_len());
        seen.extend(page.leases.into_iter().map(|lease| lease.address));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!((seen.len(), pages), (120, 3));
    assert_eq!(agent.list(&["leases"], "leases")?.len(), 120);
    Ok(())
}

#[test]
fn rule_14_a_token_that_is_not_of_this_list_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    for sandbox in ["a", "b", "c"] {
        agent.allocate(sandbox)?;
    }
    runtime()?.block_on(async {
        let channel = connect(&agent.socket()).await?;
        let mut one = ListLeasesRequest::default();
        one.page(1, "");
        let token = one.send(channel.clone()).await?.into_inner().next_page_token;
        ensure!(!token.is_empty(), "no token");
        refused(&channel, ListPoolsRequest::default(), &token).await?;
        let other = ListLeasesRequest { state: LeaseState::Held.into(), ..Default::default() };
        refused(&channel, other, &token).await?;
        for wrong in ["1", "token", &token[2..], &format!("{token}00"), &"0".repeat(60_000)] {
            refused(&channel, ListLeasesRequest::default(), wrong).await?;
        }
        let mut request = ListLeasesRequest::default();
        request.page(-1, "");
        let answer = request.send(channel).await;
        let status = answer.err().context("a negative size is taken")?;
        ensure!(reason(&status) == "REQUEST_MALFORMED", "{status}");
        Ok(())
    })
}

#[test]
fn rule_14_what_changes_between_two_pages_is_told_from_their_seq_on() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    let leases: Vec<_> =
        (0..6).map(|number| agent.allocate(&format!("s{number}"))).collect::<Result<_>>()?;
    runtime()?.block_on(async {
        let channel = connect(&agent.socket()).await?;
        let mut request = ListLeasesRequest::default();
        request.page(3, "");
        let first = request.clone().send(channel.clone()).await?.into_inner();
        // One that was on the first page goes, one comes, and so does the last row of the page.
        agent.release(&leases[1])?;
        agent.release(&leases[2])?;
        let new = agent.allocate("new")?;
        request.page(100, first.next());
        let rest = request.send(channel.clone()).await?.into_inner();
        let listed: Vec<_> = rest.leases.iter().map(|lease| lease.sandbox.as_str()).collect();
        assert_eq!(listed, ["s3", "s4", "s5", "new"], "rows are as of their page");
        let from = Some(rest.seq);
        let watch = WatchRequest { after_seq: from, ..WatchRequest::default() };
        let mut events = LeasesClient::new(channel).watch(watch).await?.into_inner();
        let mut told = Vec::new();
        for _ in 0..3 {
            let event = events.message().await?.context("no event")?;
            let lease = match event.subject {
                Some(guard_api::proto::event::Subject::Lease(lease)) => lease,
                other => anyhow::bail!("{other:?}"),
            };
            told.push((event.r#type, lease.address));
        }
        let of = |kind: &str, address: Ipv4Addr| (kind.to_owned(), address.to_string());
        assert_eq!(
            told,
            [
                of("lease.cooling", leases[1].address),
                of("lease.cooling", leases[2].address),
                of("lease.held", new.address),
            ]
        );
        Ok(())
    })
}

/// An agent with several of everything that is listed.
fn crowded(lab: &Lab) -> Result<(Agent, Vec<Sandbox>)> {
    // A second pool on the bridge, and one whose name comes first.
    let others = format!(
        "[[pool]]\nname = \"after\"\nbridge = {BRIDGE:?}\nprefix = \"10.9.0.0/24\"\n\
         [[pool]]\nname = \"before\"\nbridge = {BRIDGE:?}\nprefix = \"fd00::/64\"\n"
    );
    let agent = lab.agent_with(Launch::text(&format!("{}{others}", lab.config()?.text()?)))?;
    for (number, pool) in [POOL, "after", "before"].into_iter().cycle().take(9).enumerate() {
        let sandbox = format!("s{number}");
        let lease = agent.json(&["allocate", "--pool", pool, "--sandbox", &sandbox])?;
        agent.json(&["confirm", "--generation", &lease["generation"].to_string()])?;
        agent.json(&["interfaces", "reserve", "--prefix", "tap", "--id", &sandbox])?;
        let carve = ["subnets", "reserve", "--pool", "before", "--length", "80", "--id", &sandbox];
        agent.json(&carve)?;
        let address = format!("10.9.0.{}", 100 + number);
        agent.json(&["quarantine", "add", "--pool", "after", "--address", &address])?;
    }
    let sandboxes: Vec<_> =
        (0..4).map(|number| lab.sandbox(&format!("c{number}"))).collect::<Result<_>>()?;
    for (number, sandbox) in (150_u8..).zip(&sandboxes) {
        agent.await_port(sandbox)?;
        // What nobody has, and what two claim.
        for address in [[10, 8, 64, number], [10, 8, 64, 200]] {
            sandbox.announce(address.into())?;
        }
    }
    eventually("the claims", || {
        let live = agent.list(&["live"], "live")?;
        let conflicts = agent.list(&["conflicts"], "conflicts")?;
        Ok((live.len() >= 5 && conflicts.len() >= 5).then_some(()))
    })?;
    Ok((agent, sandboxes))
}

/// Reads a list in one page and in pages of one row each, and compares two fields of the rows.
macro_rules! same {
    ($channel:expr, $request:expr, $rows:ident, $first:ident, $second:ident) => {
        same($channel, $request, |page| {
            page.$rows.iter().map(|row| (row.$first.clone(), row.$second.clone())).collect()
        })
        .await?
    };
}

#[test]
fn rule_14_every_list_is_the_same_by_pages_of_one_row() -> Result<()> {
    let lab = Lab::new()?;
    let (agent, _sandboxes) = crowded(&lab)?;
    runtime()?.block_on(async {
        let channel = &connect(&agent.socket()).await?;
        let quarantined =
            QuarantineRequest { action: QuarantineAction::List.into(), ..Default::default() };
        let on_bridge = LiveRequest { bridge: BRIDGE.to_owned(), ..Default::default() };
        let dry = GcRequest { dry_run: true, ..Default::default() };
        same!(channel, ListLeasesRequest::default(), leases, pool, address);
        same!(channel, quarantined, leases, pool, address);
        same!(channel, ListPoolsRequest::default(), pools, name, prefix);
        same!(channel, ListSubnetsRequest::default(), subnets, id, prefix);
        same!(channel, ListInterfacesRequest::default(), interfaces, name, id);
        same!(channel, LiveRequest::default(), live, bridge, address);
        same!(channel, on_bridge, live, bridge, address);
        same!(channel, PortsRequest::default(), ports, interface, bridge);
        same!(channel, ConflictsRequest::default(), conflicts, id, address);
        same!(channel, dry, unverifiable, pool, address);
        // No dry run: what is left as it is can be read to its end all the same.
        same!(channel, ReconcileRequest::default(), unverifiable, pool, address);
        Ok(())
    })
}

#[test]
fn rule_14_a_release_of_more_than_an_answer_takes_says_how_many_there_were() -> Result<()> {
    let lab = Lab::new()?;
    let agent = lab.agent()?;
    runtime()?.block_on(async {
        let mut client = LeasesClient::new(connect(&agent.socket()).await?);
        for number in 0..100 {
            let request = AllocateRequest {
                pools: vec![POOL.to_owned()],
                owner: Some(Owner { sandbox: "wide".to_owned(), ..Owner::default() }),
                key: format!("interface-{number}"),
                labels: most_labels(),
                ..AllocateRequest::default()
            };
            client.allocate(request).await?;
        }
        anyhow::Ok(())
    })?;
    let released = agent.ctl(&["release", "--sandbox", "wide", "-o", "json"])?;
    ensure!(released.code == 0, "{}", released.stderr);
    let answer = released.json()?;
    let listed = answer["leases"].as_array().context("no list")?.len();
    assert_eq!(listed, 50, "as many as fit into a mebibyte");
    let said = "the answer lists 50 of 100; `guardctl leases` shows";
    assert!(released.stderr.starts_with(said), "{}", released.stderr);
    let all = agent.list(&["leases", "--sandbox", "wide"], "leases")?;
    let ended = |lease: &&Value| lease["state"] == "cooling";
    assert_eq!((all.len(), all.iter().filter(ended).count()), (100, 100));
    Ok(())
}

#[test]
fn rule_14_a_collection_goes_page_by_page_to_the_end() -> Result<()> {
    const LEASES: usize = 1_100;
    let lab = Lab::with_prefix(20)?;
    let agent = lab.agent()?;
    let sandbox = lab.sandbox("many")?;
    agent.await_port(&sandbox)?;
    runtime()?.block_on(async {
        let client = LeasesClient::new(connect(&agent.socket()).await?);
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..LEASES {
            let mut client = client.clone();
            let request = AllocateRequest {
                pools: vec![POOL.to_owned()],
                owner: Some(Owner { sandbox: format!("s{number}"), ..Owner::default() }),
                interface: sandbox.port().to_owned(),
                confirmed: true,
                ..AllocateRequest::default()
            };
            calls.spawn(async move { client.allocate(request).await });
        }
        while let Some(called) = calls.join_next().await {
            called??;
        }
        anyhow::Ok(())
    })?;
    sandbox.delete()?;
    eventually("the end of its port", || {
        Ok(agent.list(&["ports"], "ports")?.is_empty().then_some(()))
    })?;
    assert_eq!(agent.list(&["gc", "--dry-run"], "released")?.len(), LEASES);
    assert_eq!(agent.list(&["leases", "--state", "active"], "leases")?.len(), LEASES);
    assert_eq!(agent.list(&["gc", "--yes"], "released")?.len(), LEASES);
    assert!(agent.list(&["leases", "--state", "active"], "leases")?.is_empty());
    Ok(())
}

#[test]
fn rule_14_reservations_are_taken_over_page_by_page() -> Result<()> {
    const RESERVATIONS: usize = 1_100;
    let lab = Lab::with_prefix(20)?;
    let agent = lab.agent()?;
    let dir = lab.dir().join("host-local");
    std::fs::create_dir(&dir)?;
    let mut addresses = lab.prefix().trunc().hosts().skip(5);
    for number in 0..RESERVATIONS {
        let address = addresses.next().context("the pool is too small")?;
        std::fs::write(dir.join(address.to_string()), format!("container-{number}\r\neth0"))?;
    }
    let adopt = ["adopt", "--from-host-local", &dir.to_string_lossy()].map(str::to_owned);
    let adopt: Vec<_> = adopt.iter().map(String::as_str).collect();
    let dry = agent.list(&[&adopt[..], &["--dry-run"]].concat(), "leases")?;
    assert_eq!((dry.len(), agent.list(&["leases"], "leases")?.len()), (RESERVATIONS, 0));
    // All but the host's own address, if that is among them.
    let answer = agent.ctl(&[&adopt[..], &["-o", "json"]].concat())?.json()?;
    let length = |list: &str| answer[list].as_array().map_or(0, Vec::len);
    assert_eq!((length("leases"), length("refused")), (RESERVATIONS, 0));
    assert_eq!(agent.list(&["leases"], "leases")?.len(), RESERVATIONS);
    Ok(())
}

/// Reads a list in one page and in pages of one row each, and compares the rows.
async fn same<R: Request>(
    channel: &Channel,
    mut request: R,
    rows: impl Fn(&R::Page) -> Vec<(String, String)>,
) -> Result<()> {
    let whole = rows(&pages::all(channel, request.clone()).await?);
    let mut one_by_one = Vec::new();
    request.page(1, "");
    loop {
        let page = request.clone().send(channel.clone()).await?.into_inner();
        let row = rows(&page);
        ensure!(row.len() == 1, "{} rows on a page of one: {row:?}", row.len());
        one_by_one.extend(row);
        if page.next().is_empty() {
            break;
        }
        request.page(1, page.next());
    }
    ensure!(whole.len() > 1, "a list of {whole:?} says nothing");
    ensure!(one_by_one == whole, "{one_by_one:?} is not {whole:?}");
    let mut count = BTreeMap::new();
    for row in whole {
        *count.entry(row).or_insert(0) += 1;
    }
    ensure!(count.values().all(|count| *count == 1), "a row twice: {count:?}");
    Ok(())
}

async fn list(agent: &Agent, request: ListLeasesRequest) -> Result<ListLeasesResponse> {
    Ok(LeasesClient::new(connect(&agent.socket()).await?).list(request).await?.into_inner())
}

async fn refused<R: Request>(channel: &Channel, mut request: R, token: &str) -> Result<()> {
    request.page(0, token);
    let status = request.send(channel.clone()).await.err().context("it is taken")?;
    ensure!(status.code() == Code::InvalidArgument && reason(&status) == "PAGE_TOKEN", "{status}");
    ensure!(CallError::from(status).to_string().contains("next_page_token"), "what to do");
    Ok(())
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
