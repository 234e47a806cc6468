"""A client of guard's API that shares no code with it, generated from the proto as it is now.

Each command prints one JSON document; `conflicts` prints one a line, the first of which says that
it follows. A refusal is a document too: its status, and the reason from its details.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import grpc
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc

DEADLINE = 20
# gRPC's C core names the percent-encoded path of a Unix socket as the authority. No HTTP/2 server
# that keeps to RFC 9113 section 8.3.1 takes that, and ours is one.
LOCALHOST = [("grpc.default_authority", "localhost")]


def generate(proto: Path, out: str):
    """Generates the client and imports it."""
    import grpc_tools

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={proto}",
            f"--proto_path={well_known}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            "guard/v1/guard.proto",
        ]
    )
    if code:
        sys.exit(f"protoc: {code}")
    sys.path.insert(0, out)
    from guard.v1 import guard_pb2, guard_pb2_grpc

    return guard_pb2, guard_pb2_grpc


def show(document):
    """Prints a message or a dictionary."""
    if not isinstance(document, dict):
        document = MessageToDict(document, preserving_proto_field_name=True)
    print(json.dumps(document), flush=True)


def refusal(error: grpc.RpcError) -> dict:
    """The status of a refusal, and the reason from its details."""
    found = {"status": error.code().name, "message": error.details(), "reason": None}
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            found.update(reason=info.reason, domain=info.domain)
    return found


def describe(channel) -> dict:
    """The services that reflection lists, and the health of the server."""
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(iter(reflection.ServerReflectionInfo(iter([question]), timeout=DEADLINE)))
    names = [service.name for service in answer.list_services_response.service]
    health = health_pb2_grpc.HealthStub(channel)
    status = health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE).status
    serving = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    return {"services": names, "health": serving}


def follow(stub, request):
    """Prints what a stream brings, after a line that says that it stands."""
    stream = stub.WatchConflicts(request)
    stream.initial_metadata()
    show({"following": True})
    for conflict in stream:
        show(conflict)


def read_all(leases, messages, size: int) -> dict:
    """All leases by pages, with no limit of a message but gRPC's own."""
    request = messages.ListLeasesRequest(page_size=size)
    found, sizes = [], []
    while True:
        page = leases.List(request, timeout=DEADLINE)
        found.extend(lease.address for lease in page.leases)
        sizes.append(page.ByteSize())
        if not page.next_page_token:
            return {"addresses": found, "pages": len(sizes), "largest": max(sizes)}
        request.page_token = page.next_page_token


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proto", type=Path, required=True)
    parser.add_argument("--socket", required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    allocate = commands.add_parser("allocate")
    allocate.add_argument("--pool", required=True)
    allocate.add_argument("--sandbox", required=True)
    for name in ("confirm", "release"):
        commands.add_parser(name).add_argument("--generation", type=int, required=True)
    commands.add_parser("leases").add_argument("--page-size", type=int, default=0)
    commands.add_parser("conflicts")
    commands.add_parser("describe")
    return parser.parse_args()


def main():
    """Runs one command."""
    args = arguments()
    with tempfile.TemporaryDirectory() as out:
        messages, services = generate(args.proto, out)
        with grpc.insecure_channel(f"unix://{args.socket}", options=LOCALHOST) as channel:
            leases = services.LeasesStub(channel)
            try:
                match args.command:
                    case "allocate":
                        owner = messages.Owner(sandbox=args.sandbox)
                        request = messages.AllocateRequest(pools=[args.pool], owner=owner)
                        show(leases.Allocate(request, timeout=DEADLINE).leases[0])
                    case "confirm":
                        request = messages.ConfirmRequest(generation=args.generation)
                        show(leases.Confirm(request, timeout=DEADLINE))
                    case "release":
                        request = messages.ReleaseRequest(generation=args.generation)
                        show(leases.Release(request, timeout=DEADLINE))
                    case "leases":
                        show(read_all(leases, messages, args.page_size))
                    case "conflicts":
                        follow(services.GuardStub(channel), messages.WatchConflictsRequest())
                    case "describe":
                        show(describe(channel))
            except grpc.RpcError as error:
                show(refusal(error))


if __name__ == "__main__":
    main()
