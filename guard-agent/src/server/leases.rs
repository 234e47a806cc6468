//! `guard.v1.Leases`.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use guard_core::{
    bounds,
    lease::{
        Act, Caller, Generation, Lease, LeaseFilter, State,
        command::{Allocate, Command, Refusal, Reply},
    },
};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::{
    Deps, audit,
    binding::{Unbindable, to_interface, to_mac},
    convert,
    error::{self, Invalid},
    page::Page,
    until_stopped, watched,
};
use guard_api::proto::{self, Outcome, release_request::Which};

use crate::{events::Subscription, health};

pub(super) struct Service(pub Arc<Deps>);

/// For so long at most a CPU judges by what was, while the kernel's entries change: a tick of its clock.
const TICK: Duration = Duration::from_millis(10);

type EventStream = Pin<Box<dyn Stream<Item = Result<proto::Event, Status>> + Send>>;

#[tonic::async_trait]
impl proto::leases_server::Leases for Service {
    async fn allocate(
        &self,
        request: Request<proto::AllocateRequest>,
    ) -> Result<Response<proto::AllocateResponse>, Status> {
        let start = Instant::now();
        let caller = caller(&request);
        let allocate = to_allocate(request.into_inner())?;
        let pools = allocate.pools.clone();
        let result = match self.open(&pools) {
            Ok(()) => match self.declarable(&allocate).await {
                Ok(()) => self
                    .call(caller, Command::Allocate(allocate))
                    .await
                    .map_err(|refusal| (refusal.reason.name(), error::refused(refusal))),
                Err(error) => Err((error.reason(), error.into())),
            },
            Err((reason, status)) => Err((reason, status)),
        };
        let word = result.as_ref().map_or_else(|(reason, _)| *reason, |_| "ok");
        let config = self.0.config();
        for pool in pools.iter().filter(|pool| config.pools.get(pool).is_some()) {
            let metrics = &self.0.metrics;
            metrics.leases.allocations.with_label_values(&[&**pool, word]).inc();
            let duration = metrics.leases.allocation_duration.with_label_values(&[&**pool]);
            duration.observe(start.elapsed().as_secs_f64());
        }
        match result {
            Ok(Reply::Leases(leases)) => {
                let what = addresses(&leases);
                let leases = leases.iter().map(|lease| self.0.message(lease)).collect();
                Ok(audit::changed(proto::AllocateResponse { leases }, what))
            }
            Ok(reply) => Err(unexpected(&reply)),
            Err((_, status)) => Err(status),
        }
    }

    async fn confirm(
        &self,
        request: Request<proto::ConfirmRequest>,
    ) -> Result<Response<proto::ConfirmResponse>, Status> {
        let caller = caller(&request);
        let proto::ConfirmRequest { generation } = request.into_inner();
        named("confirm", generation)?;
        let (outcome, lease) = self.one(caller, Command::Confirm(generation)).await?;
        let what = address(generation, lease.as_ref());
        Ok(audit::changed(proto::ConfirmResponse { outcome: outcome.into(), lease }, what))
    }

    async fn bind(
        &self,
        request: Request<proto::BindRequest>,
    ) -> Result<Response<proto::BindResponse>, Status> {
        let caller = caller(&request);
        let proto::BindRequest { generation, mac, interface } = request.into_inner();
        named("bind", generation)?;
        let (mac, interface) = (to_mac(&mac)?, to_interface(&interface)?);
        if mac.is_none() && interface.is_none() {
            return Err(Invalid::Missing("bind names neither a MAC nor an interface").into());
        }
        let (mut port, mut before) = (None, None);
        if let Some(lease) = self.find(generation).await? {
            before = Some(lease.binding.clone());
            caller.check(lease.act()).map_err(error::refused)?;
            let bridge = &lease.segment.bridge;
            let ifindex = self.0.bindable(bridge, mac, interface.as_deref()).await?;
            if let Some(name) = interface {
                let ifindex = ifindex.ok_or_else(|| Unbindable::no_such_port(bridge, &name))?;
                port = Some((name, ifindex));
            }
        }
        let new_port = port.as_ref().map(|(_, ifindex)| *ifindex);
        let takes = before.is_some_and(|before| {
            is_another(before.ifindex, new_port) || is_another(before.mac, mac)
        });
        let (outcome, lease) = self.one(caller, Command::Bind { generation, mac, port }).await?;
        if outcome == Outcome::Done
            && let Some(lease) = self.find(generation).await?
            && !self.0.owners.in_kernel(&lease.segment, lease.address)
        {
            let address = lease.address;
            if self.0.owners.has_no_room(&lease.segment, address) {
                return Err(error::no_room_in_kernel(address));
            }
            let message = format!(
                "the binding of {address} is stored, and not in the kernel: nobody else's claim \
                 is noticed yet; ask again"
            );
            return Err(error::not_in_kernel(message));
        }
        if takes && outcome == Outcome::Done {
            tokio::time::sleep(TICK).await;
        }
        let what = address(generation, lease.as_ref());
        Ok(audit::changed(proto::BindResponse { outcome: outcome.into(), lease }, what))
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::ReleaseResponse>, Status> {
        let caller = caller(&request);
        let proto::ReleaseRequest { which, only_if_gone, cut } = request.into_inner();
        if let Some(Which::Generation(generation)) = which {
            named("release", generation)?;
        }
        let mut given_back = None;
        let command = match which {
            Some(Which::Generation(generation)) if only_if_gone => Command::ReleaseGone(generation),
            Some(Which::Generation(generation)) => {
                given_back = Some(generation);
                Command::Release(generation)
            }
            Some(Which::Owner(_)) if only_if_gone => {
                let what = "release with only_if_gone names no generation; a sandbox that is named \
                            is released by its controller's word";
                return Err(Invalid::Missing(what).into());
            }
            Some(Which::Owner(owner)) => Command::ReleaseOwner {
                sandbox: to_name("sandbox", &owner.sandbox, 1)?,
                lifecycle: Some(to_name("lifecycle", &owner.lifecycle, 0)?)
                    .filter(|lifecycle| !lifecycle.is_empty()),
            },
            None => {
                let what = "release names neither a generation nor an owner; a bare address is \
                            not enough";
                return Err(Invalid::Missing(what).into());
            }
        };
        let mut reply = self.call(caller.clone(), command).await.map_err(error::refused)?;
        if cut {
            let again = given_back.filter(|_| matches!(reply, Reply::Stale));
            reply = self.cut(&caller, reply, again).await?;
        }
        let (outcome, leases) = match reply {
            Reply::Released(State::Releasing, leases) => (Outcome::Releasing, leases),
            Reply::Released(_, leases) => (Outcome::Cooling, leases),
            Reply::Stale => (Outcome::Stale, Vec::new()),
            Reply::NotFound => (Outcome::NotFound, Vec::new()),
            reply => return Err(unexpected(&reply)),
        };
        let what = addresses(&leases);
        for lease in &leases {
            let result = if outcome == Outcome::Releasing { "releasing" } else { "cooling" };
            self.0.metrics.leases.releases.with_label_values(&[&*lease.pool, result]).inc();
        }
        Ok(audit::changed(self.0.released(outcome, leases), what))
    }

    async fn get(
        &self,
        request: Request<proto::GetLeaseRequest>,
    ) -> Result<Response<proto::Lease>, Status> {
        let proto::GetLeaseRequest { generation } = request.into_inner();
        let lease = self.find(generation).await?;
        let lease = lease.ok_or_else(|| error::lease_unknown(generation))?;
        Ok(Response::new(self.0.message(&lease)))
    }

    async fn list(
        &self,
        request: Request<proto::ListLeasesRequest>,
    ) -> Result<Response<proto::ListLeasesResponse>, Status> {
        let mut request = request.into_inner();
        let mut page = Page::of("Leases.List", &mut request, self.0.bus.last())?;
        let pool = Some(request.pool.as_str()).filter(|pool| !pool.is_empty());
        if let Some(name) = pool
            && self.0.config().pools.get(name).is_none()
        {
            return Err(error::pool_unknown(name));
        }
        let sandbox = Some(request.sandbox.as_str()).filter(|sandbox| !sandbox.is_empty());
        let filter = LeaseFilter {
            pool: pool.map(Arc::from),
            state: to_state(request.state)?,
            sandbox: sandbox.map(Arc::from),
            ..LeaseFilter::default()
        };
        let leases = self.0.page(filter, &mut page).await.map_err(error::refused)?;
        let (next_page_token, seq) = (page.next(), page.seq);
        Ok(Response::new(proto::ListLeasesResponse { leases, next_page_token, seq }))
    }

    async fn ack_hold(
        &self,
        request: Request<proto::AckHoldRequest>,
    ) -> Result<Response<proto::AckHoldResponse>, Status> {
        let caller = caller(&request);
        let proto::AckHoldRequest { generation, subscriber } = request.into_inner();
        let subscriber = to_name("subscriber", &subscriber, 1)?;
        if !self.waits_for(generation, &subscriber).await? {
            return Err(error::subscriber_unknown(&subscriber));
        }
        let what = format!("the hold of {subscriber:?} on generation {generation}");
        let command = Command::AckHold { generation, subscriber };
        let outcome = match self.call(caller, command).await.map_err(error::refused)? {
            Reply::Stale => Outcome::Stale,
            Reply::NotFound => Outcome::NotFound,
            _ => Outcome::Done,
        };
        let what = (outcome == Outcome::Done).then_some(what);
        Ok(audit::changed(proto::AckHoldResponse { outcome: outcome.into() }, what))
    }

    type WatchStream = EventStream;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let caller = caller(&request);
        let mut request = request.into_inner();
        let subscriber = std::mem::take(&mut request.subscriber);
        if !subscriber.is_empty() {
            caller.check(Act::Subscriber(&subscriber)).map_err(error::refused)?;
        }
        let progress = self.0.bus.progress(&subscriber);
        let Subscription { backlog, gap, seq, receiver } = self.0.bus.subscribe(request.after_seq);
        let first = backlog.first().map_or(seq, |event| event.seq.saturating_sub(1));
        if let Some(progress) = &progress {
            progress.fetch_max(first, Ordering::Relaxed);
        }
        // A message is made when it is sent: whoever does not read costs no more than the events.
        let deps = self.0.clone();
        let backlog = stream::iter(backlog).then(move |event| {
            let message = convert::event(&event, &deps.config(), &*deps.live);
            // A long backlog leaves others their turns.
            tokio::task::yield_now().map(|()| message)
        });
        let begin = stream::iter(gap.then(|| convert::gap(first))).chain(backlog).map(Ok);
        let deps = self.0.clone();
        let later = stream::unfold((receiver, deps, seq), |(mut receiver, deps, seq)| async move {
            match receiver.recv().await {
                Ok(event) => {
                    let message = convert::event(&event, &deps.config(), &*deps.live);
                    Some((Ok(message), (receiver, deps, event.seq)))
                }
                Err(RecvError::Lagged(missed)) => {
                    let seq = seq.saturating_add(missed);
                    Some((Ok(convert::gap(seq)), (receiver, deps, seq)))
                }
                Err(RecvError::Closed) => None,
            }
        });
        // The transport takes the next one when it has room: what is taken is sent.
        let stream = begin.chain(later).inspect_ok(move |event| {
            if let Some(progress) = &progress {
                progress.fetch_max(event.seq, Ordering::Relaxed);
            }
        });
        let stream = watched::narrowed(stream, request);
        Ok(Response::new(until_stopped(stream, self.0.stopping.clone())))
    }
}

impl Service {
    async fn call(&self, caller: Caller, command: Command) -> Result<Reply, Refusal> {
        let result = self.0.ledger.call(Command::For(caller, command.into())).await;
        if let Err(refusal) = &result
            && refusal.reason.is_store()
        {
            self.0.health.degraded(health::STORE, &refusal.message);
        }
        result
    }

    /// What leases that were given back still bind is over. `again`: one that was given back before.
    async fn cut(
        &self,
        caller: &Caller,
        reply: Reply,
        again: Option<Generation>,
    ) -> Result<Reply, Status> {
        let leases = match &reply {
            Reply::Released(_, leases) => leases.as_slice(),
            _ => &[],
        };
        let releasing = leases.iter().filter(|lease| lease.state == State::Releasing);
        let generations: Vec<_> = releasing.map(|lease| lease.generation).chain(again).collect();
        let mut cut = None;
        for generation in generations {
            let command = Command::Cut(generation);
            cut = Some(self.call(caller.clone(), command).await.map_err(error::refused)?);
        }
        Ok(if again.is_some() { cut.unwrap_or(reply) } else { reply })
    }

    /// A command about one lease.
    async fn one(
        &self,
        caller: Caller,
        command: Command,
    ) -> Result<(Outcome, Option<proto::Lease>), Status> {
        match self.call(caller, command).await.map_err(error::refused)? {
            Reply::Leases(leases) => {
                Ok((Outcome::Done, leases.first().map(|lease| self.0.message(lease))))
            }
            Reply::Stale => Ok((Outcome::Stale, None)),
            Reply::NotFound => Ok((Outcome::NotFound, None)),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn find(&self, generation: Generation) -> Result<Option<Arc<Lease>>, Status> {
        let filter = LeaseFilter { generation: Some(generation), ..LeaseFilter::default() };
        let mut leases = self.0.ledger.leases(filter).await.map_err(error::refused)?;
        Ok(leases.pop().map(|(lease, _)| lease))
    }

    /// Whether a subscriber is one of the configuration's, or was when the lease was released.
    async fn waits_for(&self, generation: Generation, subscriber: &str) -> Result<bool, Status> {
        if self.0.config().subscribers.iter().any(|(name, _)| **name == *subscriber) {
            return Ok(true);
        }
        let lease = self.find(generation).await?;
        let holds = lease.iter().flat_map(|lease| &lease.holds);
        Ok(holds.into_iter().any(|hold| *hold.subscriber == *subscriber))
    }

    /// Whether the pools can be allocated from; a pool that there is not is the engine's to refuse.
    fn open(&self, pools: &[Arc<str>]) -> Result<(), (&'static str, Status)> {
        let config = self.0.config();
        let pools = pools.iter().filter_map(|name| config.pools.get(name));
        self.0.may_allocate(pools).map_err(|closed| ("UNAVAILABLE", closed.into()))
    }

    /// Whether the bridges of the pools can have what an allocation declares. Watches the port, if it
    /// exists yet.
    async fn declarable(&self, allocate: &Allocate) -> Result<(), Unbindable> {
        let config = self.0.config();
        let pools = allocate.pools.iter().filter_map(|name| config.pools.get(name));
        let bridges: BTreeSet<_> = pools.map(|pool| &pool.segment().bridge).collect();
        for bridge in bridges {
            self.0.bindable(bridge, allocate.mac, allocate.interface.as_deref()).await?;
        }
        Ok(())
    }
}

/// On whose behalf a call is.
pub(super) fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get().cloned().expect("admission puts it into every request")
}

/// Leases, for the audit.
pub(super) fn addresses(leases: &[Arc<Lease>]) -> Option<String> {
    let lease = |lease: &Arc<Lease>| {
        let sandbox = lease.owner.as_ref().map(|owner| &*owner.sandbox).unwrap_or_default();
        format!("{} in pool {} of sandbox {sandbox:?}", lease.address, lease.pool)
    };
    // One sandbox may have very many.
    let some: Vec<_> = leases.iter().take(16).map(lease).collect();
    (!some.is_empty()).then(|| some.join(", "))
}

/// The lease of a generation, for the audit.
fn address(generation: Generation, lease: Option<&proto::Lease>) -> Option<String> {
    lease.map(|lease| format!("generation {generation}, {}", lease.address))
}

/// Whether what was known is another than what is named now.
fn is_another<T: PartialEq>(known: Option<T>, named: Option<T>) -> bool {
    known.is_some_and(|known| named.is_some_and(|named| named != known))
}

fn unexpected(reply: &Reply) -> Status {
    Status::internal(format!("the lease engine answered {reply:?}"))
}

fn to_allocate(request: proto::AllocateRequest) -> Result<Allocate, Invalid> {
    let proto::AllocateRequest {
        pools,
        owner,
        key,
        address,
        mac,
        interface,
        labels,
        confirmed,
        workload,
    } = request;
    if pools.is_empty() {
        return Err(Invalid::Missing("no pool is named; name at least one"));
    }
    bounds::POOLS.check("the allocation", pools.len())?;
    for (at, pool) in pools.iter().enumerate() {
        if pools[..at].contains(pool) {
            return Err(Invalid::PoolTwice(pool.clone()));
        }
    }
    bounds::LABELS.check("the lease", labels.len())?;
    for (key, value) in &labels {
        if key.is_empty() {
            return Err(Invalid::Missing("a label has no key"));
        }
        bounds::LABEL_KEY.check("the key of a label", key.len())?;
        bounds::LABEL_VALUE.check(format_args!("the label {key:?}"), value.len())?;
    }
    let owner = owner.unwrap_or_default();
    Ok(Allocate {
        pools: pools.into_iter().map(Arc::from).collect(),
        sandbox: to_name("sandbox", &owner.sandbox, 1)?,
        lifecycle: to_name("lifecycle", &owner.lifecycle, 0)?,
        key: to_name("key", &key, 0)?,
        address: match address.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| Invalid::Address(address))?),
        },
        mac: to_mac(&mac)?,
        interface: to_interface(&interface)?,
        labels: labels.into_iter().collect(),
        confirmed,
        workload: to_bounded("workload", &workload, 0, bounds::WORKLOAD.most)?,
    })
}

/// Every lease has a generation, and none has 0, which is what a field that nobody set says.
fn named(call: &'static str, generation: Generation) -> Result<(), Invalid> {
    if generation == 0 { Err(Invalid::Generation(call)) } else { Ok(()) }
}

/// The state that a list is narrowed to, if any.
fn to_state(number: i32) -> Result<Option<State>, Invalid> {
    match proto::LeaseState::try_from(number) {
        Ok(proto::LeaseState::Unspecified) => Ok(None),
        Ok(state) => convert::to_state(state).map(Some).ok_or(Invalid::State(number)),
        Err(_) => Err(Invalid::State(number)),
    }
}

pub(super) fn to_name(field: &'static str, value: &str, least: usize) -> Result<Arc<str>, Invalid> {
    to_bounded(field, value, least, bounds::NAME.most)
}

fn to_bounded(
    field: &'static str,
    value: &str,
    least: usize,
    most: usize,
) -> Result<Arc<str>, Invalid> {
    if value.is_empty() && least == 0 {
        return Ok(guard_core::lease::no_text());
    }
    let length = (least..=most).contains(&value.len());
    if length && value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(value.into());
    }
    Err(Invalid::Name { field, value: value.chars().take(64).collect(), least, most })
}
