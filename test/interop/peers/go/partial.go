package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p-pubsub/partialmessages"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// The lab's application of partial messages: a group has 4 parts of 16 bytes. Parts metadata is one byte, bit i (from
// the lowest) for part i being there. A partial message is such a byte and then its parts, from the lowest.
const partCount, partBytes = 4, 16

type partState struct {
	// What was last told to the peer, and what it has: by its own word, or because it was sent.
	told, has   byte
	tells, said bool
}

type partials struct {
	g      *gossip
	mu     sync.Mutex
	groups map[string]*[partCount][]byte
}

func newPartials(g *gossip) *partials {
	return &partials{g: g, groups: map[string]*[partCount][]byte{}}
}

func (s *partials) extension() *partialmessages.PartialMessagesExtension[partState] {
	return &partialmessages.PartialMessagesExtension[partState]{
		Logger:             toStderr,
		GroupTTLByHeatbeat: 60,
		OnIncomingRPC:      s.onIncoming,
		OnEmitGossip: func(topic string, group []byte, _ []peer.ID, _ map[peer.ID]partState) {
			go s.publish(topic, group, false)
		},
	}
}

func aboutPartial(m *pb.PartialMessagesExtension) answer {
	about := answer{"topic": m.GetTopicID(), "group": toBase64(m.GetGroupID()), "metadata": nil, "message": nil}
	if m.PartsMetadata != nil {
		about["metadata"] = toBase64(m.PartsMetadata)
	}
	if m.PartialMessage != nil {
		about["message"] = toBase64(m.PartialMessage)
	}
	return about
}

func keyOfGroup(topic string, group []byte) string { return topic + "\x00" + string(group) }

// have is the bitmap of a group, which comes into being.
func (s *partials) have(topic string, group []byte) (parts *[partCount][]byte, bitmap byte) {
	key := keyOfGroup(topic, group)
	if s.groups[key] == nil {
		s.groups[key] = &[partCount][]byte{}
	}
	for i, part := range s.groups[key] {
		if part != nil {
			bitmap |= 1 << i
		}
	}
	return s.groups[key], bitmap
}

func decodeParts(message []byte) (bitmap byte, parts [partCount][]byte, err error) {
	if len(message) == 0 {
		return 0, parts, nil
	}
	bitmap = message[0]
	rest := message[1:]
	if bitmap>>partCount != 0 || len(rest) != bits.OnesCount8(bitmap)*partBytes {
		return 0, parts, fmt.Errorf("a partial message of %d bytes with bitmap %08b", len(message), bitmap)
	}
	for i := range parts {
		if bitmap&(1<<i) != 0 {
			parts[i], rest = rest[:partBytes], rest[partBytes:]
		}
	}
	return bitmap, parts, nil
}

// onIncoming runs in the loop of pubsub, so what it makes us send is sent by another goroutine.
func (s *partials) onIncoming(from peer.ID, states map[peer.ID]partState, m *pb.PartialMessagesExtension) error {
	about := aboutPartial(m)
	about["from"] = from.String()
	s.mu.Lock()
	mine, before := s.have(m.GetTopicID(), m.GetGroupID())
	bitmap, parts, err := decodeParts(m.GetPartialMessage())
	if len(m.GetPartsMetadata()) > 1 || (len(m.GetPartsMetadata()) == 1 && m.GetPartsMetadata()[0]>>partCount != 0) {
		err = errors.New("parts metadata of another kind")
	}
	if err != nil {
		s.mu.Unlock()
		about["error"] = err.Error()
		s.g.lab.emit("partial", about)
		return err
	}
	for i, part := range parts {
		if part != nil && mine[i] == nil {
			mine[i] = part
		}
	}
	_, after := s.have(m.GetTopicID(), m.GetGroupID())
	s.mu.Unlock()
	state := states[from]
	state.has |= bitmap
	if len(m.GetPartsMetadata()) == 1 {
		state.has |= m.GetPartsMetadata()[0]
		state.said = true
	}
	states[from] = state
	about["have"], about["complete"] = after, after == 1<<partCount-1
	s.g.lab.emit("partial", about)
	if after != before || after&^state.has != 0 || state.has&^after != 0 {
		go s.publish(m.GetTopicID(), m.GetGroupID(), false)
	}
	return nil
}

// publish tells the peers what is here where they don't know, and sends what they lack; with eager also to those who
// have not said what they have.
func (s *partials) publish(topic string, group []byte, eager bool) error {
	return pubsub.PublishPartial(s.g.ps, topic, group, func(states map[peer.ID]partState, requests func(peer.ID) bool) iter.Seq2[peer.ID, partialmessages.PublishAction] {
		return func(yield func(peer.ID, partialmessages.PublishAction) bool) {
			s.mu.Lock()
			parts, have := s.have(topic, group)
			s.mu.Unlock()
			for id, state := range states {
				action := partialmessages.PublishAction{}
				if lacks := have &^ state.has; lacks != 0 && requests(id) && (state.said || eager) {
					action.EncodedPartialMessage = []byte{lacks}
					for i, part := range parts {
						if lacks&(1<<i) != 0 {
							action.EncodedPartialMessage = append(action.EncodedPartialMessage, part...)
						}
					}
					state.has |= lacks
				}
				if !state.tells || state.told != have {
					action.EncodedPartsMetadata = partialmessages.PartsMetadata{have}
					state.tells, state.told = true, have
				}
				states[id] = state
				if !yield(id, action) {
					return
				}
			}
		}
	})
}

// cmdPartialPub takes parts, by their place, and publishes the group.
func cmdPartialPub(_ context.Context, g *gossip, r *request) (answer, error) {
	if g.partial == nil {
		return nil, errors.New("this peer runs without --pubsub-partial")
	}
	if _, err := g.topic(r.Topic); err != nil {
		return nil, err
	}
	group, err := fromBase64(r.Group)
	if err != nil {
		return nil, err
	}
	if len(r.Parts) > partCount {
		return nil, fmt.Errorf("more than %d parts", partCount)
	}
	g.partial.mu.Lock()
	mine, _ := g.partial.have(r.Topic, group)
	for i, text := range r.Parts {
		if text == nil {
			continue
		}
		part, err := fromBase64(*text)
		if err == nil && len(part) != partBytes {
			err = fmt.Errorf("a part has %d bytes", partBytes)
		}
		if err != nil {
			g.partial.mu.Unlock()
			return nil, err
		}
		mine[i] = part
	}
	g.partial.mu.Unlock()
	return nil, g.partial.publish(r.Topic, group, r.Eager)
}

func cmdPartialGet(_ context.Context, g *gossip, r *request) (answer, error) {
	if g.partial == nil {
		return nil, errors.New("this peer runs without --pubsub-partial")
	}
	group, err := fromBase64(r.Group)
	if err != nil {
		return nil, err
	}
	g.partial.mu.Lock()
	defer g.partial.mu.Unlock()
	mine, have := g.partial.have(r.Topic, group)
	parts := []any{}
	for _, part := range mine {
		if part == nil {
			parts = append(parts, nil)
		} else {
			parts = append(parts, toBase64(part))
		}
	}
	return answer{"have": have, "complete": have == 1<<partCount-1, "parts": parts}, nil
}
