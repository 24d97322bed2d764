package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

func init() { commands["recorded"] = cmdRecorded }

// records keeps the bytes of streams that the libraries use, both ways, after negotiation.
type records struct {
	prefixes []string
	mu       sync.Mutex
	streams  []*recordedStream
}

// recordingHost hands out streams that are recorded.
type recordingHost struct {
	host.Host
	records *records
}

type recordedStream struct {
	network.Stream
	direction      string
	mu             sync.Mutex
	protocol       protocol.ID
	sent, received []byte
}

func (s *recordedStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, b[:n]...)
	return n, err
}

func (s *recordedStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, b[:n]...)
	return n, err
}

func (r *records) wrap(s network.Stream, direction string) network.Stream {
	fits := func(prefix string) bool { return strings.HasPrefix(string(s.Protocol()), prefix) }
	if !slices.ContainsFunc(r.prefixes, fits) {
		return s
	}
	recorded := &recordedStream{Stream: s, direction: direction, protocol: s.Protocol()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams = append(r.streams, recorded)
	return recorded
}

func (h *recordingHost) NewStream(ctx context.Context, id peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, id, ids...)
	if err != nil {
		return nil, err
	}
	return h.records.wrap(s, "out"), nil
}

func (h *recordingHost) wrapped(handler network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) { handler(h.records.wrap(s, "in")) }
}

func (h *recordingHost) SetStreamHandler(id protocol.ID, handler network.StreamHandler) {
	h.Host.SetStreamHandler(id, h.wrapped(handler))
}

func (h *recordingHost) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, handler network.StreamHandler) {
	h.Host.SetStreamHandlerMatch(id, match, h.wrapped(handler))
}

func cmdRecorded(_ context.Context, p *lab, _ *request) (answer, error) {
	if p.records == nil {
		return nil, errors.New("this peer runs without --record")
	}
	p.records.mu.Lock()
	defer p.records.mu.Unlock()
	list := []answer{}
	for _, s := range p.records.streams {
		s.mu.Lock()
		list = append(list, answer{
			"protocol": s.protocol, "peer": s.Conn().RemotePeer().String(), "direction": s.direction,
			"sent": toBase64(s.sent), "received": toBase64(s.received),
		})
		s.mu.Unlock()
	}
	return answer{"streams": list}, nil
}
