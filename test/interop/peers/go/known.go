package main

import (
	"context"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
)

// known keeps what identify accepted last of each peer: go-libp2p checks signed records, and keeps only their addresses.
type known struct {
	mu   sync.Mutex
	last map[peer.ID]event.EvtPeerIdentificationCompleted
}

func newKnown(h host.Host) (*known, error) {
	sub, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(256))
	if err != nil {
		return nil, err
	}
	k := &known{last: map[peer.ID]event.EvtPeerIdentificationCompleted{}}
	go func() {
		for e := range sub.Out() {
			done := e.(event.EvtPeerIdentificationCompleted)
			k.mu.Lock()
			k.last[done.Peer] = done
			k.mu.Unlock()
		}
	}()
	return k, nil
}

func cmdKnown(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := peer.Decode(r.Peer)
	if err != nil {
		return nil, err
	}
	addrs, certified := []string{}, []string{}
	for _, a := range p.host.Peerstore().Addrs(id) {
		addrs = append(addrs, a.String())
	}
	protocols, err := p.host.Peerstore().GetProtocols(id)
	if err != nil {
		return nil, err
	}
	p.known.mu.Lock()
	envelope := p.known.last[id].SignedPeerRecord
	p.known.mu.Unlock()
	if envelope != nil {
		record, err := envelope.Record()
		if err != nil {
			return nil, err
		}
		for _, a := range record.(*peer.PeerRecord).Addrs {
			certified = append(certified, a.String())
		}
	}
	return answer{"addrs": addrs, "certified": certified, "protocols": protocols}, nil
}
