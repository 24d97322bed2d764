// A go-libp2p peer driven by one JSON object per line: commands on stdin, answers on stdout, logs on stderr.
// The contract is in ../README.md.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

type answer map[string]any

// request holds every parameter of every command; a command reads the ones it knows.
type request struct {
	ID        json.RawMessage `json:"id"`
	Cmd       string          `json:"cmd"`
	Addr      string          `json:"addr"`
	Peer      string          `json:"peer"`
	Protocol  string          `json:"protocol"`
	Protocols []string        `json:"protocols"`
	Bytes     string          `json:"bytes"`
	Base64    *string         `json:"base64"`
	Path      string          `json:"path"`
	Size      *int64          `json:"size"`
	Seed      uint32          `json:"seed"`
	Profile   string          `json:"profile"`
	Cid       string          `json:"cid"`
	Cids      []string        `json:"cids"`
	Count     int             `json:"count"`
	Parallel  int             `json:"parallel"`
	Payload   int             `json:"payload"`
	Upload    uint64          `json:"upload"`
	Download  uint64          `json:"download"`
	WriteSize int             `json:"writeSize"`
	Code      uint32          `json:"code"`
	Key       string          `json:"key"`
	Value     string          `json:"value"`
	Node      int             `json:"node"`
	TimeoutMs int             `json:"timeoutMs"`

	// Pubsub.
	Topic string    `json:"topic"`
	Data  string    `json:"data"`
	Score *float64  `json:"score"`
	Group string    `json:"group"`
	Parts []*string `json:"parts"`
	Eager bool      `json:"eager"`

	// Storms.
	PerSecond float64 `json:"perSecond"`

	// DAGs and GraphSync.
	Codec                string                     `json:"codec"`
	Hash                 string                     `json:"hash"`
	Root                 string                     `json:"root"`
	Roots                []string                   `json:"roots"`
	Version              int                        `json:"version"`
	Selector             json.RawMessage            `json:"selector"`
	Extensions           map[string]json.RawMessage `json:"extensions"`
	DoNotSendCids        []string                   `json:"doNotSendCids"`
	DoNotSendFirstBlocks int64                      `json:"doNotSendFirstBlocks"`
	DedupByKey           *string                    `json:"dedupByKey"`
	MaxLinks             int64                      `json:"maxLinks"`
	MaxNodes             int64                      `json:"maxNodes"`
	Once                 bool                       `json:"once"`
	SkipMissing          bool                       `json:"skipMissing"`
	All                  bool                       `json:"all"`
	PauseAfter           int64                      `json:"pauseAfter"`
	Validate             string                     `json:"validate"`
	EchoExtensions       bool                       `json:"echoExtensions"`
	UnpauseOnUpdate      bool                       `json:"unpauseOnUpdate"`
	Request              string                     `json:"request"`
}

type command func(ctx context.Context, p *lab, r *request) (answer, error)

type lab struct {
	host     host.Host
	options  []libp2p.Option
	exchange *exchange
	captures *captures
	known    *known
	kad      *dht.IpfsDHT
	pubsub   *gossip
	graph    *graph
	records  *records
	// Tells of what happens without being asked for, under the number of the node.
	emit func(event string, about answer)
}

func identity(keyType string) (crypto.PrivKey, error) {
	types := map[string]int{
		"ed25519":   crypto.Ed25519,
		"rsa":       crypto.RSA,
		"secp256k1": crypto.Secp256k1,
		"ecdsa":     crypto.ECDSA,
	}
	t, known := types[keyType]
	if !known {
		return nil, fmt.Errorf("no such key type: %s", keyType)
	}
	// The bits are for RSA alone.
	key, _, err := crypto.GenerateKeyPair(t, 2048)
	return key, err
}

// repeated is a flag that may be given several times.
type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, " ") }
func (r *repeated) Set(v string) error { *r = append(*r, v); return nil }

func main() {
	log.SetOutput(os.Stderr)
	var listen repeated
	flag.Var(&listen, "listen", "multiaddr to listen on, may be repeated (default /ip4/127.0.0.1/tcp/0)")
	stack := stackFlags()
	versions := flag.String("bitswap", "1.2", "newest bitswap version spoken: 1.2, 1.1, 1.0 or none")
	keyType := flag.String("key", "ed25519", "identity: ed25519, rsa, secp256k1 or ecdsa")
	network := flag.String("kad", "", "serve or use a Kademlia DHT: lan, amino, or the prefix of a network of its own")
	mode := flag.String("kad-mode", "server", "server or client")
	recorded := flag.String("record", "", "protocols, or how they begin, whose streams are kept for the command recorded; with commas")
	gossips := gossipFlags()
	graphs := flag.Bool("graphsync", false, "serve GraphSync, and ask by it")
	nodes := flag.Int("nodes", 1, "how many nodes run in this process; commands choose one by node, from 0")
	flag.Parse()

	if len(listen) == 0 {
		listen = repeated{"/ip4/127.0.0.1/tcp/0"}
	}
	opts, err := stack.options()
	if err != nil {
		log.Fatal(err)
	}
	var out sync.Mutex
	print := func(v any) {
		line, err := json.Marshal(v)
		if err != nil {
			log.Fatal(err)
		}
		out.Lock()
		defer out.Unlock()
		os.Stdout.Write(append(line, '\n'))
	}
	about := []answer{}
	for node := range *nodes {
		p, err := start(opts, *keyType, listen, *recorded)
		if err != nil {
			log.Fatal(err)
		}
		p.emit = func(event string, about answer) {
			about["event"], about["node"] = event, node
			print(about)
		}
		if p.exchange, err = newExchange(p.host, *versions); err != nil {
			log.Fatal(err)
		}
		if p.kad, err = newKad(p.host, *network, *mode); err != nil {
			log.Fatal(err)
		}
		if p.pubsub, err = newGossip(p, gossips); err != nil {
			log.Fatal(err)
		}
		if *graphs {
			p.graph = newGraph(p)
		}
		one, err := p.about()
		if err != nil {
			log.Fatal(err)
		}
		labs, about = append(labs, p), append(about, one)
	}

	print(answer{"event": "listening", "peerId": about[0]["peerId"], "addrs": about[0]["addrs"], "nodes": about})

	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		r := &request{}
		if err := json.Unmarshal(line, r); err != nil {
			print(answer{"ok": false, "error": "bad command line: " + err.Error()})
			continue
		}
		if r.Cmd == "stop" {
			print(answer{"id": r.ID, "ok": true})
			break
		}
		go func() {
			timeout := 60 * time.Second
			if r.TimeoutMs > 0 {
				timeout = time.Duration(r.TimeoutMs) * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			if r.Node < 0 || r.Node >= len(labs) {
				print(answer{"id": r.ID, "ok": false, "error": "no such node"})
				return
			}
			run, known := commands[r.Cmd]
			if !known {
				print(answer{"id": r.ID, "ok": false, "error": "no such command: " + r.Cmd})
				return
			}
			result, err := run(ctx, labs[r.Node], r)
			if err != nil {
				print(answer{"id": r.ID, "ok": false, "error": err.Error()})
				return
			}
			if result == nil {
				result = answer{}
			}
			result["id"], result["ok"] = r.ID, true
			print(result)
		}()
	}
	for _, p := range labs {
		p.host.Close()
	}
}

// start makes a node with an identity of its own.
func start(opts []libp2p.Option, keyType string, listen []string, recorded string) (*lab, error) {
	key, err := identity(keyType)
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(append(slices.Clone(opts), libp2p.Identity(key), libp2p.ListenAddrStrings(listen...))...)
	if err != nil {
		return nil, err
	}
	p := &lab{host: h, options: opts, captures: newCaptures()}
	if recorded != "" {
		p.records = &records{prefixes: strings.Split(recorded, ",")}
		h = &recordingHost{Host: h, records: p.records}
		p.host = h
	}
	if p.known, err = newKnown(h); err != nil {
		return nil, err
	}
	serve(h)
	serveCodes(h)
	return p, nil
}

func (p *lab) about() (answer, error) {
	resolved, err := p.host.Network().InterfaceListenAddresses()
	if err != nil {
		return nil, err
	}
	// It gives them in no order: tcp, ws, tls/ws.
	slices.SortStableFunc(resolved, func(a, b ma.Multiaddr) int { return len(a) - len(b) })
	addrs := []string{}
	for _, a := range resolved {
		addrs = append(addrs, a.String()+"/p2p/"+p.host.ID().String())
	}
	return answer{"peerId": p.host.ID().String(), "addrs": addrs}, nil
}

// target names the peer of a command and connects to it first when an address was given.
func (p *lab) target(ctx context.Context, r *request) (peer.ID, error) {
	if r.Addr != "" {
		return connect(ctx, p.host, r.Addr)
	}
	if r.Peer == "" {
		return "", errors.New("addr or peer is needed")
	}
	return peer.Decode(r.Peer)
}

func connect(ctx context.Context, h host.Host, addr string) (peer.ID, error) {
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return "", err
	}
	info, err := peer.AddrInfoFromP2pAddr(a)
	if err != nil {
		return "", err
	}
	// This address, and none that identify told of. When the last connection has just ended, identify removes addresses
	// that are kept for as short as Connect keeps them.
	h.Peerstore().ClearAddrs(info.ID)
	h.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.RecentlyConnectedAddrTTL)
	return info.ID, h.Connect(ctx, *info)
}

func fromBase64(s string) ([]byte, error) { return base64.StdEncoding.DecodeString(s) }
func toBase64(b []byte) string            { return base64.StdEncoding.EncodeToString(b) }
