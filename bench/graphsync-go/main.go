// go-graphsync of bench/graphsync.ts: `load` reads a CAR into memory, `graphsync` fetches a whole DAG into an empty store.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipfs/go-graphsync/storeutil"
	carv2 "github.com/ipld/go-car/v2"
	_ "github.com/ipld/go-codec-dagpb"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

type request struct {
	ID   int    `json:"id"`
	Cmd  string `json:"cmd"`
	Cid  string `json:"cid"`
	Addr string `json:"addr"`
	Path string `json:"path"`
}

type answer map[string]any

type bench struct {
	host     host.Host
	store    blockstore.Blockstore
	exchange graphsync.GraphExchange
}

func (b *bench) load(ctx context.Context, path string) (answer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader, err := carv2.NewBlockReader(file)
	if err != nil {
		return nil, err
	}
	for {
		block, err := reader.Next()
		if err == io.EOF {
			return answer{"cid": reader.Roots[0].String()}, nil
		}
		if err != nil {
			return nil, err
		}
		own, err := blocks.NewBlockWithCid(block.RawData(), block.Cid())
		if err != nil {
			return nil, err
		}
		if err := b.store.Put(ctx, own); err != nil {
			return nil, err
		}
	}
}

func (b *bench) fetch(ctx context.Context, text, addr string) (answer, error) {
	at, err := multiaddr.NewMultiaddr(addr)
	if err != nil {
		return nil, err
	}
	info, err := peer.AddrInfoFromP2pAddr(at)
	if err != nil {
		return nil, err
	}
	root, err := cid.Decode(text)
	if err != nil {
		return nil, err
	}
	if err := b.host.Connect(ctx, *info); err != nil {
		return nil, err
	}
	count := 0
	b.exchange.RegisterIncomingBlockHook(func(peer.ID, graphsync.ResponseData, graphsync.BlockData, graphsync.IncomingBlockHookActions) {
		count++
	})
	start := time.Now()
	progress, errs := b.exchange.Request(ctx, info.ID, cidlink.Link{Cid: root}, selectorparse.CommonSelector_ExploreAllRecursively)
	for range progress {
	}
	for err := range errs {
		return nil, err
	}
	return answer{"seconds": time.Since(start).Seconds(), "blocks": count}, nil
}

func main() {
	ctx := context.Background()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		panic(err)
	}
	store := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	exchange := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), storeutil.LinkSystemForBlockstore(store), gsimpl.RejectAllRequestsByDefault())
	exchange.RegisterIncomingRequestHook(func(_ peer.ID, _ graphsync.RequestData, actions graphsync.IncomingRequestHookActions) {
		actions.ValidateRequest()
	})
	b := &bench{host: h, store: store, exchange: exchange}
	addrs := []string{}
	for _, addr := range h.Addrs() {
		addrs = append(addrs, fmt.Sprintf("%s/p2p/%s", addr, h.ID()))
	}
	out := json.NewEncoder(os.Stdout)
	about := answer{"peerId": h.ID().String(), "addrs": addrs}
	_ = out.Encode(answer{"event": "listening", "peerId": h.ID().String(), "addrs": addrs, "nodes": []answer{about}})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			panic(err)
		}
		var reply answer
		if r.Cmd == "load" {
			reply, err = b.load(ctx, r.Path)
		} else {
			reply, err = b.fetch(ctx, r.Cid, r.Addr)
		}
		if reply == nil {
			reply = answer{}
		}
		reply["id"], reply["ok"] = r.ID, err == nil
		if err != nil {
			reply["error"] = err.Error()
		}
		_ = out.Encode(reply)
	}
}
