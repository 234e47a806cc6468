// A controller for guard: gives sandboxes addresses, binds them, takes them back, and lists them.
//
// It wants the client that comes of guard's proto file, by protoc-gen-go and protoc-gen-go-grpc, and
// the modules google.golang.org/grpc and google.golang.org/genproto/googleapis/rpc. In a directory of
// its own, as the module "controller":
//
//	protoc --proto_path=guard-agent/proto --go_out=. --go-grpc_out=. \
//		--go_opt=module=controller,Mguard/v1/guard.proto=controller/guardv1 \
//		--go-grpc_opt=module=controller,Mguard/v1/guard.proto=controller/guardv1 \
//		guard/v1/guard.proto
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"controller/guardv1"
)

// Admit gives a sandbox an address, from before it is made until it runs.
//
// Every step can be repeated: the same owner gets the same lease, so a controller that was interrupted
// just begins again.
func Admit(ctx context.Context, leases guardv1.LeasesClient, pool string, owner *guardv1.Owner,
	make func(*guardv1.Lease) (mac, port string, err error)) (*guardv1.Lease, error) {
	var lease *guardv1.Lease
	err := withRetry(ctx, func(ctx context.Context) error {
		answer, err := leases.Allocate(ctx, &guardv1.AllocateRequest{
			Pools: []string{pool}, Owner: owner, Key: "eth0"})
		if err == nil {
			lease = answer.Leases[0]
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	mac, port, err := make(lease)
	if err != nil {
		return nil, err
	}
	// From here on any other station that claims the address is reported at its first frame.
	err = withRetry(ctx, func(ctx context.Context) error {
		_, err := leases.Bind(ctx, &guardv1.BindRequest{
			Generation: lease.Generation, Mac: mac, Interface: port})
		return err
	})
	if err != nil {
		return nil, err
	}
	// Here the sandbox starts.
	err = withRetry(ctx, func(ctx context.Context) error {
		answer, err := leases.Confirm(ctx, &guardv1.ConfirmRequest{Generation: lease.Generation})
		if err == nil && answer.Outcome != guardv1.Outcome_OUTCOME_DONE {
			err = fmt.Errorf("somebody released the lease in between: %v", answer.Outcome)
		}
		return err
	})
	return lease, err
}

// Dismiss gives back all that a sandbox has. Twice is as good as once.
func Dismiss(ctx context.Context, leases guardv1.LeasesClient, owner *guardv1.Owner) (
	outcome guardv1.Outcome, err error) {
	err = withRetry(ctx, func(ctx context.Context) error {
		answer, err := leases.Release(ctx, &guardv1.ReleaseRequest{
			Which: &guardv1.ReleaseRequest_Owner{Owner: owner}})
		outcome = answer.GetOutcome()
		return err
	})
	return outcome, err
}

// State returns all leases of a pool, or of all where it is empty, page by page, and the event after
// which Watch tells what has changed meanwhile.
func State(ctx context.Context, leases guardv1.LeasesClient, pool string) (
	found []*guardv1.Lease, seq uint64, err error) {
	request := &guardv1.ListLeasesRequest{Pool: pool}
	for {
		var page *guardv1.ListLeasesResponse
		err = withRetry(ctx, func(ctx context.Context) (err error) {
			page, err = leases.List(ctx, request)
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		found = append(found, page.Leases...)
		if page.NextPageToken == "" {
			return found, page.Seq, nil
		}
		request.PageToken = page.NextPageToken
	}
}

// withRetry makes a call again after as long as guard says, if it does, until ctx is done.
func withRetry(ctx context.Context, call func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := call(once)
		cancel()
		wait := time.Duration(-1)
		for _, detail := range status.Convert(err).Details() {
			if retry, ok := detail.(*errdetails.RetryInfo); ok {
				wait = retry.RetryDelay.AsDuration()
			}
		}
		if wait < 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// explain says why guard refused, such as POOL_EXHAUSTED.
func explain(err error) string {
	refusal := status.Convert(err)
	for _, detail := range refusal.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return fmt.Sprintf("%v/%s: %s", refusal.Code(), info.Reason, refusal.Message())
		}
	}
	return err.Error()
}

func run() error {
	socket := flag.String("socket", "/run/guard/guard.sock", "where guard-agent listens")
	flag.Parse()
	command := flag.NewFlagSet(flag.Arg(0), flag.ExitOnError)
	sandbox := command.String("sandbox", "", "who gets an address, or gives it back")
	lifecycle := command.String("lifecycle", "", "which life of the sandbox")
	pool := command.String("pool", "sandboxes", "where the address is from")
	mac := command.String("mac", "", "the MAC of the sandbox")
	port := command.String("port", "", "its veth's end on the bridge")
	if flag.NArg() > 0 {
		_ = command.Parse(flag.Args()[1:])
	}

	// Who may call is decided by the user of this process: there is nothing to encrypt. Without an
	// authority the path of the socket would become the name of the host, which HTTP/2 does not allow.
	connection, err := grpc.Dial("unix://"+*socket, grpc.WithInsecure(), grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer connection.Close()
	leases := guardv1.NewLeasesClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	owner := &guardv1.Owner{Sandbox: *sandbox, Lifecycle: *lifecycle}
	switch command.Name() {
	case "admit":
		lease, err := Admit(ctx, leases, *pool, owner, func(*guardv1.Lease) (string, string, error) {
			// Here the sandbox and its veth are made, with the lease's Address, PrefixLen and Gateway.
			return *mac, *port, nil
		})
		if err != nil {
			return err
		}
		fmt.Printf("%s/%d via %s\n", lease.Address, lease.PrefixLen, lease.Gateway)
	case "dismiss":
		outcome, err := Dismiss(ctx, leases, owner)
		if err != nil {
			return err
		}
		fmt.Println(outcome)
	case "list":
		found, _, err := State(ctx, leases, *pool)
		if err != nil {
			return err
		}
		for _, lease := range found {
			fmt.Println(lease.Address, lease.State, lease.Sandbox)
		}
	default:
		return fmt.Errorf("%q is none of admit, dismiss and list", command.Name())
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, explain(err))
		os.Exit(1)
	}
}
