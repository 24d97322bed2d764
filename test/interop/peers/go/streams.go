package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	identify "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"
)

const chunkBytes = 64 << 10

var zeros = make([]byte, chunkBytes)

// serve registers the protocols that every lab peer answers.
func serve(h host.Host) {
	handle := func(id protocol.ID, f func(s network.Stream) error) {
		h.SetStreamHandler(id, func(s network.Stream) {
			if err := f(s); err != nil {
				s.Reset()
				return
			}
			s.Close()
		})
	}
	handle("/echo/1.0.0", func(s network.Stream) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{s}, make([]byte, chunkBytes))
		return err
	})
	handle("/sink/1.0.0", func(s network.Stream) error {
		n, err := drain(s)
		if err != nil {
			return err
		}
		return binary.Write(s, binary.BigEndian, uint64(n))
	})
	handle("/source/1.0.0", func(s network.Stream) error {
		var n uint64
		if err := binary.Read(s, binary.BigEndian, &n); err != nil {
			return err
		}
		return writeZeros(s, n, chunkBytes)
	})
	h.SetStreamHandler("/reset/1.0.0", func(s network.Stream) {
		io.ReadFull(s, make([]byte, 1))
		s.Reset()
	})
	handle("/perf/1.0.0", func(s network.Stream) error {
		var n uint64
		if err := binary.Read(s, binary.BigEndian, &n); err != nil {
			return err
		}
		if _, err := drain(s); err != nil {
			return err
		}
		return writeZeros(s, n, chunkBytes)
	})
}

func drain(r io.Reader) (int64, error) {
	buf := make([]byte, chunkBytes)
	var total int64
	for {
		n, err := r.Read(buf)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func writeZeros(w io.Writer, n uint64, size int) error {
	for n > 0 {
		k := min(n, uint64(size))
		if _, err := w.Write(zeros[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// open gives a stream that ends with the command's deadline.
func open(ctx context.Context, h host.Host, id peer.ID, p string) (network.Stream, error) {
	s, err := h.NewStream(ctx, id, protocol.ID(p))
	if err != nil {
		return nil, err
	}
	if at, ok := ctx.Deadline(); ok {
		s.SetDeadline(at)
	}
	return s, nil
}

func cmdConnect(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := connect(ctx, p.host, r.Addr)
	if err != nil {
		return nil, err
	}
	return answer{"peer": id.String()}, nil
}

func cmdDisconnect(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, p.host.Network().ClosePeer(id)
}

func cmdPeers(ctx context.Context, p *lab, r *request) (answer, error) {
	list := []answer{}
	for _, id := range p.host.Network().Peers() {
		streams := 0
		conns := p.host.Network().ConnsToPeer(id)
		for _, c := range conns {
			streams += len(c.GetStreams())
		}
		list = append(list, answer{"peer": id.String(), "connections": len(conns), "streams": streams})
	}
	return answer{"peers": list}, nil
}

func cmdPing(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rtts := []float64{}
	results := ping.Ping(ctx, p.host, id)
	for range max(r.Count, 1) {
		result, more := <-results
		if !more {
			return nil, errors.New("ping ended early")
		}
		if result.Error != nil {
			return nil, result.Error
		}
		rtts = append(rtts, float64(result.RTT.Nanoseconds())/1e6)
	}
	return answer{"rttMs": rtts}, nil
}

// identify asks anew on a stream of its own, so that the answer is the peer's present one, and raw.
func cmdIdentify(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, p.host, id, "/ipfs/id/1.0.0")
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	raw, err := io.ReadAll(s)
	if err != nil {
		return nil, err
	}
	// A long answer comes as several messages, to be merged.
	m := &identify.Identify{}
	for rest := raw; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		if n <= 0 || uint64(len(rest)-n) < size {
			return nil, fmt.Errorf("identify message of %d bytes is cut short", len(raw))
		}
		part := &identify.Identify{}
		if err := proto.Unmarshal(rest[n:n+int(size)], part); err != nil {
			return nil, err
		}
		proto.Merge(m, part)
		rest = rest[n+int(size):]
	}
	addrs := []string{}
	for _, b := range m.ListenAddrs {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a.String())
	}
	observed := ""
	if len(m.ObservedAddr) > 0 {
		a, err := ma.NewMultiaddrBytes(m.ObservedAddr)
		if err != nil {
			return nil, err
		}
		observed = a.String()
	}
	return answer{
		"agent": m.GetAgentVersion(), "protocolVersion": m.GetProtocolVersion(), "protocols": m.Protocols,
		"listenAddrs": addrs, "observedAddr": observed, "publicKey": toBase64(m.PublicKey), "raw": toBase64(raw),
	}, nil
}

func exchangeBytes(ctx context.Context, s network.Stream, out []byte) ([]byte, error) {
	sent := make(chan error, 1)
	go func() {
		if _, err := s.Write(out); err != nil {
			sent <- err
			return
		}
		sent <- s.CloseWrite()
	}()
	back, err := io.ReadAll(s)
	if err != nil {
		return nil, err
	}
	return back, <-sent
}

func cmdEcho(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	out, err := fromBase64(r.Bytes)
	if err != nil {
		return nil, err
	}
	name := r.Protocol
	if name == "" {
		name = "/echo/1.0.0"
	}
	s, err := open(ctx, p.host, id, name)
	if err != nil {
		return nil, err
	}
	back, err := exchangeBytes(ctx, s, out)
	if err != nil {
		s.Reset()
		return nil, err
	}
	return answer{"bytes": toBase64(back)}, s.Close()
}

// send writes and closes without waiting for a reply, for protocols where each side opens its own stream.
func cmdSend(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	out, err := fromBase64(r.Bytes)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, p.host, id, r.Protocol)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(out); err != nil {
		s.Reset()
		return nil, err
	}
	return nil, s.Close()
}

// perf is the client of /perf/1.0.0. The upload ends with the first byte of the reply, or with its end.
func cmdPerf(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	size := chunkBytes
	if r.WriteSize > 0 {
		size = min(r.WriteSize, chunkBytes)
	}
	s, err := open(ctx, p.host, id, "/perf/1.0.0")
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	start := time.Now()
	if err := binary.Write(s, binary.BigEndian, r.Download); err != nil {
		return nil, err
	}
	if err := writeZeros(s, r.Upload, size); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	buf := make([]byte, chunkBytes)
	var got uint64
	var first time.Time
	for {
		n, err := s.Read(buf)
		if first.IsZero() {
			first = time.Now()
		}
		got += uint64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if got != r.Download {
		return nil, fmt.Errorf("asked for %d bytes, got %d", r.Download, got)
	}
	return answer{"uploadSeconds": first.Sub(start).Seconds(), "downloadSeconds": time.Since(first).Seconds()}, nil
}

// each runs count jobs, parallel at a time, and ends at the first error.
func each(count, parallel int, job func(worker int) error) (time.Duration, error) {
	var left atomic.Int64
	left.Store(int64(max(count, 1)))
	var wg sync.WaitGroup
	errs := make(chan error, max(parallel, 1))
	start := time.Now()
	for worker := range max(parallel, 1) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for left.Add(-1) >= 0 {
				if err := job(worker); err != nil {
					left.Store(0)
					errs <- err
					return
				}
			}
		}()
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return took, err
	default:
		return took, nil
	}
}

func cmdStreams(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	name := r.Protocol
	if name == "" {
		name = "/echo/1.0.0"
	}
	size := r.Payload
	if size == 0 {
		size = 32
	}
	out := make([]byte, size)
	rand.Read(out)
	took, err := each(r.Count, r.Parallel, func(int) error {
		s, err := open(ctx, p.host, id, name)
		if err != nil {
			return err
		}
		if _, err = s.Write(out); err == nil {
			err = s.CloseWrite()
		}
		var back []byte
		if err == nil {
			back, err = io.ReadAll(s)
		}
		if err == nil && !bytes.Equal(back, out) {
			err = errors.New("the echo differs")
		}
		if err != nil {
			s.Reset()
			return err
		}
		return s.Close()
	})
	if err != nil {
		return nil, err
	}
	return answer{"seconds": took.Seconds()}, nil
}

// dials connects, pings once and closes, count times, from `parallel` hosts with an identity each.
func cmdDials(ctx context.Context, p *lab, r *request) (answer, error) {
	hosts := make([]host.Host, max(r.Parallel, 1))
	for i := range hosts {
		var err error
		if hosts[i], err = libp2p.New(append(slices.Clip(p.options), libp2p.NoListenAddrs)...); err != nil {
			return nil, err
		}
		defer hosts[i].Close()
	}
	var mu sync.Mutex
	times := []float64{}
	took, err := each(r.Count, r.Parallel, func(worker int) error {
		h := hosts[worker]
		start := time.Now()
		id, err := connect(ctx, h, r.Addr)
		if err != nil {
			return err
		}
		pings, cancel := context.WithCancel(ctx)
		defer cancel()
		if result := <-ping.Ping(pings, h, id); result.Error != nil {
			return result.Error
		}
		ms := float64(time.Since(start).Nanoseconds()) / 1e6
		mu.Lock()
		times = append(times, ms)
		mu.Unlock()
		return h.Network().ClosePeer(id)
	})
	if err != nil {
		return nil, err
	}
	return answer{"seconds": took.Seconds(), "dialMs": times}, nil
}

// captures keeps the raw bytes of streams that others open to us.
type captures struct {
	mu      sync.Mutex
	streams []*capture
}

type capture struct {
	protocol, peer string
	mu             sync.Mutex
	bytes          []byte
	ended          bool
}

func newCaptures() *captures { return &captures{} }

func cmdCapture(ctx context.Context, p *lab, r *request) (answer, error) {
	for _, name := range r.Protocols {
		p.host.SetStreamHandler(protocol.ID(name), func(s network.Stream) {
			c := &capture{protocol: string(s.Protocol()), peer: s.Conn().RemotePeer().String()}
			p.captures.mu.Lock()
			p.captures.streams = append(p.captures.streams, c)
			p.captures.mu.Unlock()
			buf := make([]byte, chunkBytes)
			for {
				n, err := s.Read(buf)
				c.mu.Lock()
				c.bytes = append(c.bytes, buf[:n]...)
				c.ended = err != nil
				c.mu.Unlock()
				if err != nil {
					s.Close()
					return
				}
			}
		})
	}
	return nil, nil
}

func cmdCaptured(ctx context.Context, p *lab, r *request) (answer, error) {
	p.captures.mu.Lock()
	defer p.captures.mu.Unlock()
	list := []answer{}
	for _, c := range p.captures.streams {
		c.mu.Lock()
		list = append(list, answer{"protocol": c.protocol, "peer": c.peer, "bytes": toBase64(c.bytes), "ended": c.ended})
		c.mu.Unlock()
	}
	return answer{"streams": list}, nil
}
