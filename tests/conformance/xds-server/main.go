// SPDX-License-Identifier: Apache-2.0

// Command xds-server is the other implementation in Weft's xDS conformance tests: Envoy's go-control-plane behind a pipe.
// It serves ADS in both variants on a unix socket. Each line on standard input names a file with Envoy v3 resources as
// protojson, {"resources": [{"@type": ...}, ...]}, which becomes the whole state of every node under the version given
// before it: "VERSION PATH". Each line on standard output is one JSON object: {"event": "listening"}, "published", "error",
// "ack", "nack" (with the client's text), "open" or "close". It ends when standard input does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	status "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// One line of output.
type event struct {
	Event   string `json:"event"`
	Type    string `json:"type,omitempty"`
	Version string `json:"version,omitempty"`
	Node    string `json:"node,omitempty"`
	Error   string `json:"error,omitempty"`
}

var output sync.Mutex

func say(e event) {
	output.Lock()
	defer output.Unlock()
	json.NewEncoder(os.Stdout).Encode(e)
}

// All nodes share one state.
type sameForAll struct{}

func (sameForAll) ID(*core.Node) string { return "all" }

// load reads a file of resources into a snapshot.
func load(version, path string) (*cache.Snapshot, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Resources []json.RawMessage `json:"resources"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	state := map[resource.Type][]types.Resource{
		resource.ClusterType: nil, resource.EndpointType: nil, resource.ListenerType: nil, resource.RouteType: nil,
	}
	for i, raw := range file.Resources {
		var any anypb.Any
		if err := protojson.Unmarshal(raw, &any); err != nil {
			return nil, fmt.Errorf("resource %d: %w", i, err)
		}
		message, err := any.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("resource %d: %w", i, err)
		}
		switch message.(type) {
		case *cluster.Cluster, *endpoint.ClusterLoadAssignment, *listener.Listener, *route.RouteConfiguration:
			state[any.TypeUrl] = append(state[any.TypeUrl], message)
		default:
			return nil, fmt.Errorf("resource %d: type %s is not served", i, any.TypeUrl)
		}
	}
	return cache.NewSnapshot(version, state)
}

// answered reports what a client says to a response.
func answered(node *core.Node, typeURL, version, nonce string, refusal *status.Status) {
	switch {
	case refusal != nil:
		say(event{Event: "nack", Type: typeURL, Version: version, Node: node.GetId(), Error: refusal.GetMessage()})
	case nonce != "":
		say(event{Event: "ack", Type: typeURL, Version: version, Node: node.GetId()})
	}
}

func callbacks() server.Callbacks {
	return server.CallbackFuncs{
		StreamOpenFunc:        func(context.Context, int64, string) error { say(event{Event: "open"}); return nil },
		DeltaStreamOpenFunc:   func(context.Context, int64, string) error { say(event{Event: "open"}); return nil },
		StreamClosedFunc:      func(int64, *core.Node) { say(event{Event: "close"}) },
		DeltaStreamClosedFunc: func(int64, *core.Node) { say(event{Event: "close"}) },
		StreamRequestFunc: func(_ int64, r *discovery.DiscoveryRequest) error {
			answered(r.GetNode(), r.GetTypeUrl(), r.GetVersionInfo(), r.GetResponseNonce(), r.GetErrorDetail())
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, r *discovery.DeltaDiscoveryRequest) error {
			answered(r.GetNode(), r.GetTypeUrl(), "", r.GetResponseNonce(), r.GetErrorDetail())
			return nil
		},
	}
}

func run() error {
	socket := flag.String("socket", "", "path of the unix socket to serve on")
	flag.Parse()
	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(false, sameForAll{}, nil)
	l, err := net.Listen("unix", *socket)
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(ctx, snapshots, callbacks()))
	go g.Serve(l)
	say(event{Event: "listening"})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		version, path, _ := strings.Cut(lines.Text(), " ")
		snapshot, err := load(version, path)
		if err == nil {
			err = snapshots.SetSnapshot(ctx, "all", snapshot)
		}
		if err != nil {
			say(event{Event: "error", Version: version, Error: err.Error()})
			continue
		}
		say(event{Event: "published", Version: version})
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "xds-server:", err)
		os.Exit(1)
	}
}
