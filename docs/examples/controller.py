"""A controller for guard: gives sandboxes addresses, binds them, takes them back, and listens.

It wants the packages grpcio and grpcio-status, and the client that comes of guard's proto file:

    python3 -m pip install grpcio grpcio-status grpcio-tools
    python3 -m grpc_tools.protoc --proto_path=guard-agent/proto --python_out=. --grpc_python_out=. \
        guard/v1/guard.proto
"""

import argparse
import sys
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from guard.v1 import guard_pb2 as guard
from guard.v1 import guard_pb2_grpc as services

# No call takes longer, but for streams.
DEADLINE = 10
# How long to go on asking where guard says that waiting helps.
RETRY_FOR = 60


def connect(socket: str) -> grpc.Channel:
    """One connection serves any number of calls, and connects again by itself."""
    # Else the path of the socket becomes the name of the host, which HTTP/2 does not allow.
    authority = ("grpc.default_authority", "localhost")
    return grpc.insecure_channel(f"unix://{socket}", options=[authority])


def details(error: grpc.RpcError) -> tuple[str, float | None]:
    """Why guard refused, such as POOL_EXHAUSTED, and for how many seconds waiting may help."""
    reason, wait = "", None
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            wait = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, wait


def with_retry(call, request):
    """Makes a call, and makes it again after as long as guard says, if it does."""
    give_up = time.monotonic() + RETRY_FOR
    while True:
        try:
            return call(request, timeout=DEADLINE)
        except grpc.RpcError as error:
            _, wait = details(error)
            if wait is None or time.monotonic() + wait > give_up:
                raise
            time.sleep(wait)


def admit(leases, pool: str, sandbox: str, lifecycle: str, mac: str, port: str):
    """An address for a sandbox, from before it is made until it runs.

    Every step can be repeated: the same owner gets the same lease, so a controller that was
    interrupted just begins again.
    """
    owner = guard.Owner(sandbox=sandbox, lifecycle=lifecycle)
    request = guard.AllocateRequest(pools=[pool], owner=owner, key="eth0")
    lease = with_retry(leases.Allocate, request).leases[0]
    # Here the sandbox and its veth are made, with lease.address, lease.prefix_len, lease.gateway.
    #
    # From here on any other station that claims the address is reported at its first frame.
    request = guard.BindRequest(generation=lease.generation, mac=mac, interface=port)
    with_retry(leases.Bind, request)
    # Here the sandbox starts.
    answer = with_retry(leases.Confirm, guard.ConfirmRequest(generation=lease.generation))
    if answer.outcome != guard.OUTCOME_DONE:
        # Somebody released it in between.
        raise RuntimeError(f"the lease is gone: {guard.Outcome.Name(answer.outcome)}")
    return answer.lease


def dismiss(leases, sandbox: str, lifecycle: str) -> str:
    """Gives back all that a sandbox has. Twice is as good as once."""
    owner = guard.Owner(sandbox=sandbox, lifecycle=lifecycle)
    answer = with_retry(leases.Release, guard.ReleaseRequest(owner=owner))
    return guard.Outcome.Name(answer.outcome)


def state(leases, **filters):
    """All leases, page by page, and the event after which to follow what has changed meanwhile."""
    request = guard.ListLeasesRequest(**filters)
    found = []
    while True:
        page = with_retry(leases.List, request)
        found.extend(page.leases)
        if not page.next_page_token:
            return found, page.seq
        request.page_token = page.next_page_token


def follow(leases, after: int | None):
    """What happens, from an event that was seen before or from now on, also after the agent has restarted."""
    gap = False
    if after is None:
        after = leases.List(guard.ListLeasesRequest(page_size=1)).seq
    while True:
        if gap:
            # Some events are not held any more: read the state anew, and go on from there.
            found, after = state(leases)
            print(after, "state", len(found), flush=True)
            gap = False
        try:
            for event in leases.Watch(guard.WatchRequest(after_seq=after)):
                gap = event.type == "gap"
                if gap:
                    break
                after = event.seq
                subject = event.conflict if event.HasField("conflict") else event.lease
                print(event.seq, event.type, subject.address, flush=True)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            print("the agent has gone; waiting for it", file=sys.stderr, flush=True)
            time.sleep(1)


def main():
    """Runs one command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default="/run/guard/guard.sock")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("admit", "dismiss"):
        command = commands.add_parser(name)
        command.add_argument("--sandbox", required=True)
        command.add_argument("--lifecycle", default="")
        if name == "admit":
            for option in ("--pool", "--mac", "--port"):
                command.add_argument(option, required=True)
    commands.add_parser("list").add_argument("--pool", default="")
    commands.add_parser("follow").add_argument("--after", type=int)
    args = parser.parse_args()
    with connect(args.socket) as channel:
        leases = services.LeasesStub(channel)
        try:
            match args.command:
                case "admit":
                    owner = args.sandbox, args.lifecycle
                    lease = admit(leases, args.pool, *owner, args.mac, args.port)
                    print(f"{lease.address}/{lease.prefix_len} via {lease.gateway}")
                case "dismiss":
                    print(dismiss(leases, args.sandbox, args.lifecycle))
                case "list":
                    for lease in state(leases, pool=args.pool)[0]:
                        print(lease.address, guard.LeaseState.Name(lease.state), lease.sandbox)
                case "follow":
                    follow(leases, args.after)
        except grpc.RpcError as error:
            reason, _ = details(error)
            raise SystemExit(f"{error.code().name}/{reason}: {error.details()}") from error


if __name__ == "__main__":
    main()
