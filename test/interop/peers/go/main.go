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
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
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
	TimeoutMs int             `json:"timeoutMs"`
}

type command func(ctx context.Context, p *lab, r *request) (answer, error)

type lab struct {
	host     host.Host
	security string
	exchange *exchange
	captures *captures
}

func options(security, muxer string) ([]libp2p.Option, error) {
	opts := []libp2p.Option{
		libp2p.NoTransports,
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.UserAgent("rhiza-lab-go"),
	}
	switch security {
	case "noise":
		opts = append(opts, libp2p.Security(noise.ID, noise.New))
	case "tls":
		opts = append(opts, libp2p.Security(libp2ptls.ID, libp2ptls.New))
	default:
		return nil, fmt.Errorf("no such security: %s", security)
	}
	if muxer != "yamux" {
		return nil, fmt.Errorf("no such muxer: %s", muxer)
	}
	return append(opts, libp2p.Muxer(yamux.ID, yamux.DefaultTransport)), nil
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

func main() {
	log.SetOutput(os.Stderr)
	security := flag.String("security", "noise", "noise or tls")
	muxer := flag.String("muxer", "yamux", "yamux")
	listen := flag.String("listen", "/ip4/127.0.0.1/tcp/0", "multiaddr to listen on")
	versions := flag.String("bitswap", "1.2", "newest bitswap version spoken: 1.2, 1.1, 1.0 or none")
	keyType := flag.String("key", "ed25519", "identity: ed25519, rsa, secp256k1 or ecdsa")
	flag.Parse()

	opts, err := options(*security, *muxer)
	if err != nil {
		log.Fatal(err)
	}
	key, err := identity(*keyType)
	if err != nil {
		log.Fatal(err)
	}
	opts = append(opts, libp2p.Identity(key))
	h, err := libp2p.New(append(opts, libp2p.ListenAddrStrings(*listen))...)
	if err != nil {
		log.Fatal(err)
	}
	p := &lab{host: h, security: *security, captures: newCaptures()}
	serve(h)
	if p.exchange, err = newExchange(h, *versions); err != nil {
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

	resolved, err := h.Network().InterfaceListenAddresses()
	if err != nil {
		log.Fatal(err)
	}
	addrs := []string{}
	for _, a := range resolved {
		addrs = append(addrs, a.String()+"/p2p/"+h.ID().String())
	}
	print(answer{"event": "listening", "peerId": h.ID().String(), "addrs": addrs})

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
			run, known := commands[r.Cmd]
			if !known {
				print(answer{"id": r.ID, "ok": false, "error": "no such command: " + r.Cmd})
				return
			}
			result, err := run(ctx, p, r)
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
	h.Close()
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
	return info.ID, h.Connect(ctx, *info)
}

func fromBase64(s string) ([]byte, error) { return base64.StdEncoding.DecodeString(s) }
func toBase64(b []byte) string            { return base64.StdEncoding.EncodeToString(b) }
