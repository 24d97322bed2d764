package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	unixfs "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
)

// exchange is a memory blockstore, with bitswap over it unless the peer runs without.
type exchange struct {
	blocks  blockstore.Blockstore
	bitswap *bitswap.Bitswap
}

func newExchange(h host.Host, versions string) (*exchange, error) {
	x := &exchange{blocks: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))}
	var protocols []protocol.ID
	switch versions {
	case "none":
		return x, nil
	case "1.2":
		protocols = []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}
	case "1.1":
		protocols = []protocol.ID{bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}
	case "1.0":
		protocols = []protocol.ID{bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}
	default:
		return nil, fmt.Errorf("no such bitswap version: %s", versions)
	}
	x.bitswap = bitswap.New(context.Background(), bsnet.NewFromIpfsHost(h, bsnet.SupportedProtocols(protocols)), nil, x.blocks)
	return x, nil
}

// source gives the bytes of addBytes: from the command line, a file, or made from size and seed.
func source(r *request) (io.ReadCloser, error) {
	switch {
	case r.Base64 != nil:
		b, err := fromBase64(*r.Base64)
		return io.NopCloser(bytes.NewReader(b)), err
	case r.Path != "":
		return os.Open(r.Path)
	case r.Size != nil:
		return io.NopCloser(io.LimitReader(newXorshift(r.Seed), *r.Size)), nil
	}
	return nil, errors.New("base64, path or size is needed")
}

// xorshift is xorshift32 as a stream of little-endian words; the other lab peers make the same bytes.
type xorshift struct {
	state uint32
	rest  []byte
}

func newXorshift(seed uint32) *xorshift {
	if seed == 0 {
		seed = 1
	}
	return &xorshift{state: seed}
}

func (x *xorshift) Read(b []byte) (int, error) {
	n := copy(b, x.rest)
	x.rest = x.rest[n:]
	for ; n+4 <= len(b); n += 4 {
		binary.LittleEndian.PutUint32(b[n:], x.word())
	}
	if n < len(b) {
		x.rest = binary.LittleEndian.AppendUint32(nil, x.word())
		k := copy(b[n:], x.rest)
		x.rest = x.rest[k:]
		n += k
	}
	return n, nil
}

func (x *xorshift) word() uint32 {
	x.state ^= x.state << 13
	x.state ^= x.state >> 17
	x.state ^= x.state << 5
	return x.state
}

func cmdAddBytes(ctx context.Context, p *lab, r *request) (answer, error) {
	in, err := source(r)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	params := helpers.DagBuilderParams{Maxlinks: 1024, RawLeaves: true}
	chunkSize := int64(1 << 20)
	prefix, err := merkledag.PrefixForCidVersion(1)
	switch r.Profile {
	case "", "v1-2025":
	case "v0-2015":
		params.Maxlinks, params.RawLeaves, chunkSize = 174, false, 256<<10
		prefix, err = merkledag.PrefixForCidVersion(0)
	default:
		return nil, fmt.Errorf("no such profile: %s", r.Profile)
	}
	if err != nil {
		return nil, err
	}
	prefix.MhType = multihash.SHA2_256
	params.CidBuilder = prefix
	batch := ipld.NewBufferedDAG(ctx, merkledag.NewDAGService(blockservice.New(p.exchange.blocks, offline.Exchange(p.exchange.blocks))))
	params.Dagserv = batch
	counted := &counter{r: in}
	start := time.Now()
	builder, err := params.New(chunk.NewSizeSplitter(counted, chunkSize))
	if err != nil {
		return nil, err
	}
	root, err := balanced.Layout(builder)
	if err != nil {
		return nil, err
	}
	if err := batch.Commit(); err != nil {
		return nil, err
	}
	return answer{"cid": root.Cid().String(), "size": counted.n, "seconds": time.Since(start).Seconds()}, nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (x *exchange) online() (*bitswap.Bitswap, error) {
	if x.bitswap == nil {
		return nil, errors.New("this peer runs without bitswap")
	}
	return x.bitswap, nil
}

// fetch reads a whole UnixFS file from the connected peers, after connecting to addr when one is given.
func cmdFetch(ctx context.Context, p *lab, r *request) (answer, error) {
	bs, err := p.exchange.online()
	if err != nil {
		return nil, err
	}
	c, err := cid.Decode(r.Cid)
	if err != nil {
		return nil, err
	}
	if r.Addr != "" {
		if _, err := p.target(ctx, r); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	dag := merkledag.NewSession(ctx, merkledag.NewDAGService(blockservice.New(p.exchange.blocks, bs)))
	root, err := dag.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	file, err := unixfs.NewDagReader(ctx, root, dag)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	size, err := file.WriteTo(hash)
	if err != nil {
		return nil, err
	}
	return answer{"size": size, "sha256": hex.EncodeToString(hash.Sum(nil)), "seconds": time.Since(start).Seconds()}, nil
}

func cmdFetchBlock(ctx context.Context, p *lab, r *request) (answer, error) {
	bs, err := p.exchange.online()
	if err != nil {
		return nil, err
	}
	c, err := cid.Decode(r.Cid)
	if err != nil {
		return nil, err
	}
	if r.Addr != "" {
		if _, err := p.target(ctx, r); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	block, err := blockservice.New(p.exchange.blocks, bs).GetBlock(ctx, c)
	if err != nil {
		return nil, err
	}
	return answer{"bytes": toBase64(block.RawData()), "size": len(block.RawData()), "seconds": time.Since(start).Seconds()}, nil
}

// want asks for blocks at once and says which came before the deadline.
func cmdWant(ctx context.Context, p *lab, r *request) (answer, error) {
	bs, err := p.exchange.online()
	if err != nil {
		return nil, err
	}
	var cids []cid.Cid
	for _, s := range r.Cids {
		c, err := cid.Decode(s)
		if err != nil {
			return nil, err
		}
		cids = append(cids, c)
	}
	if r.Addr != "" {
		if _, err := p.target(ctx, r); err != nil {
			return nil, err
		}
	}
	// A little before the command's own end, so that what came is told.
	if at, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, at.Add(-50*time.Millisecond))
		defer cancel()
	}
	blocks, err := bs.GetBlocks(ctx, cids)
	if err != nil {
		return nil, err
	}
	got := []string{}
	for b := range blocks {
		got = append(got, b.Cid().String())
	}
	return answer{"got": got}, nil
}

func cmdHas(ctx context.Context, p *lab, r *request) (answer, error) {
	c, err := cid.Decode(r.Cid)
	if err != nil {
		return nil, err
	}
	has, err := p.exchange.blocks.Has(ctx, c)
	return answer{"has": has}, err
}

// stats is what the benchmarks ask for: resident memory of this process.
func cmdStats(ctx context.Context, p *lab, r *request) (answer, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			return answer{"rssBytes": kb << 10, "pid": os.Getpid()}, nil
		}
	}
	return nil, errors.New("no VmRSS in /proc/self/status")
}

var commands = map[string]command{
	"connect": cmdConnect, "disconnect": cmdDisconnect, "peers": cmdPeers, "ping": cmdPing, "identify": cmdIdentify, "known": cmdKnown,
	"echo": cmdEcho, "send": cmdSend, "perf": cmdPerf, "streams": cmdStreams, "dials": cmdDials,
	"ending": cmdEnding, "resetStream": cmdResetStream, "closeWith": cmdCloseWith,
	"capture": cmdCapture, "captured": cmdCaptured, "noisePayload": cmdNoisePayload,
	"addBytes": cmdAddBytes, "fetch": cmdFetch, "fetchBlock": cmdFetchBlock, "want": cmdWant, "has": cmdHas, "stats": cmdStats,
}
