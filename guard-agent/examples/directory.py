"""A controller's directory, which the agent asks what became of sandboxes.

Here it is a file with a line for each of them, a name and `alive` or `dead`; yours has its own
store in the place of `read`. It needs the package grpcio, and the stubs that grpcio-tools makes:

    python -m grpc_tools.protoc --proto_path=guard-agent/proto --python_out=stubs \
        --grpc_python_out=stubs guard/directory/v1/directory.proto
    PYTHONPATH=stubs python directory.py /run/controller/directory.sock /run/controller/sandboxes
"""

import sys
from concurrent import futures
from pathlib import Path

import grpc
from guard.directory.v1 import directory_pb2 as pb
from guard.directory.v1 import directory_pb2_grpc as rpc

STATES = {"alive": pb.STATE_ALIVE, "dead": pb.STATE_DEAD}


class Directory(rpc.DirectoryServicer):
    """The sandboxes of a file."""

    def __init__(self, file: Path):
        self.file = file

    def read(self, context) -> list[pb.Sandbox]:
        """All of them or an error: a part would be taken for all."""
        try:
            lines = [line.split() for line in self.file.read_text().splitlines()]
            # One that names no lifecycle is about all of the sandbox's.
            return [pb.Sandbox(sandbox=name, state=STATES[state]) for name, state in lines]
        except (OSError, ValueError, KeyError) as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.file}: {error}")

    def List(self, request, context):
        """The index. It may lag behind, since whoever is not in it is asked for by name."""
        return pb.ListResponse(sandboxes=self.read(context))

    def Get(self, request, context):
        """The word about one: that there is none means that there never will be again."""
        found = [known for known in self.read(context) if known.sandbox == request.sandbox]
        return pb.GetResponse(sandbox=found[0] if found else None)


def main():
    """Answers on a socket until it is stopped."""
    if len(sys.argv) != 3:
        sys.exit("usage: directory.py SOCKET FILE")
    server = grpc.server(futures.ThreadPoolExecutor())
    rpc.add_DirectoryServicer_to_server(Directory(Path(sys.argv[2])), server)
    server.add_insecure_port(f"unix://{Path(sys.argv[1]).absolute()}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
