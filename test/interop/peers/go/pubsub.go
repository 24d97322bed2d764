package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

func init() {
	for name, run := range map[string]func(ctx context.Context, g *gossip, r *request) (answer, error){
		"sub": cmdSub, "unsub": cmdUnsub, "pub": cmdPub, "topicPeers": cmdTopicPeers, "mesh": cmdMesh, "topics": cmdTopics,
		"score": cmdScore, "setScore": cmdSetScore, "partialPub": cmdPartialPub, "partialGet": cmdPartialGet,
	} {
		commands[name] = func(ctx context.Context, p *lab, r *request) (answer, error) {
			if p.pubsub == nil {
				return nil, errors.New("this peer runs without --pubsub")
			}
			return run(ctx, p.pubsub, r)
		}
	}
}

type gossipOptions struct {
	kind, sign, version, partial   *string
	heartbeatMs, idontwantBytes    *int
	maxBytes                       *int
	score, trace, px, floodPublish *bool
	testExtension                  *bool
}

func gossipFlags() *gossipOptions {
	return &gossipOptions{
		kind:           flag.String("pubsub", "", "gossip or flood"),
		sign:           flag.String("pubsub-sign", "strict", "strict or none"),
		version:        flag.String("pubsub-version", "1.3.0", "the newest meshsub offered, older ones too; floodsub: that alone"),
		partial:        flag.String("pubsub-partial", "", "request or support: partial messages in every topic"),
		heartbeatMs:    flag.Int("pubsub-heartbeat-ms", 1000, "between two heartbeats"),
		idontwantBytes: flag.Int("pubsub-idontwant-bytes", 1024, "messages of this size and more make an IDONTWANT"),
		maxBytes:       flag.Int("pubsub-max-bytes", pubsub.DefaultMaxMessageSize, "of one RPC"),
		score:          flag.Bool("pubsub-score", false, "score peers"),
		trace:          flag.Bool("pubsub-trace", false, "events for RPCs, grafts, prunes, and messages rejected or known"),
		px:             flag.Bool("pubsub-px", false, "tell of peers in a PRUNE"),
		testExtension:  flag.Bool("pubsub-test-extension", false, "speak the test extension of 1.3.0"),
		floodPublish:   flag.Bool("pubsub-flood-publish", false, "send own messages to all peers of a topic"),
	}
}

type gossip struct {
	lab     *lab
	options *gossipOptions
	ps      *pubsub.PubSub
	// What is joined, and what is subscribed to. The loop of pubsub never waits for it, but is waited for with it held.
	joining sync.Mutex
	topics  map[string]*pubsub.Topic
	subs    map[string]*pubsub.Subscription
	mu      sync.Mutex
	meshes  map[string]map[peer.ID]bool
	// The scores of the last inspection, and the application's share.
	scores  map[peer.ID]*pubsub.PeerScoreSnapshot
	assumed map[peer.ID]float64
	partial *partials
}

var meshsub = []protocol.ID{pubsub.GossipSubID_v13, pubsub.GossipSubID_v12, pubsub.GossipSubID_v11, pubsub.GossipSubID_v10}

// offered gives the protocols up to a version.
func offered(version string) ([]protocol.ID, error) {
	if version == "floodsub" {
		return []protocol.ID{pubsub.FloodSubID}, nil
	}
	for i, id := range meshsub {
		if strings.HasSuffix(string(id), "/"+version) {
			return append(slices.Clone(meshsub[i:]), pubsub.FloodSubID), nil
		}
	}
	return nil, fmt.Errorf("no such pubsub version: %s", version)
}

func newGossip(p *lab, options *gossipOptions) (*gossip, error) {
	if *options.kind == "" {
		return nil, nil
	}
	g := &gossip{
		lab: p, options: options, topics: map[string]*pubsub.Topic{}, subs: map[string]*pubsub.Subscription{},
		meshes: map[string]map[peer.ID]bool{}, scores: map[peer.ID]*pubsub.PeerScoreSnapshot{}, assumed: map[peer.ID]float64{},
	}
	opts := []pubsub.Option{pubsub.WithRawTracer(tracer{g}), pubsub.WithMaxMessageSize(*options.maxBytes)}
	switch *options.sign {
	case "strict":
		opts = append(opts, pubsub.WithMessageSignaturePolicy(pubsub.StrictSign))
	case "none":
		// Without author and number the id is made of the data, as in js-libp2p.
		opts = append(opts, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
			pubsub.WithMessageIdFn(func(m *pb.Message) string {
				sum := sha256.Sum256(m.GetData())
				return string(sum[:])
			}))
	default:
		return nil, fmt.Errorf("no such signature policy: %s", *options.sign)
	}
	var err error
	switch *options.kind {
	case "flood":
		g.ps, err = pubsub.NewFloodSub(context.Background(), p.host, opts...)
	case "gossip":
		protocols, failed := offered(*options.version)
		if failed != nil {
			return nil, failed
		}
		params := pubsub.DefaultGossipSubParams()
		params.HeartbeatInterval = time.Duration(*options.heartbeatMs) * time.Millisecond
		params.HeartbeatInitialDelay = min(params.HeartbeatInitialDelay, params.HeartbeatInterval)
		params.IDontWantMessageThreshold = *options.idontwantBytes
		opts = append(opts, pubsub.WithGossipSubProtocols(protocols, pubsub.GossipSubDefaultFeatures), pubsub.WithGossipSubParams(params),
			pubsub.WithPeerExchange(*options.px), pubsub.WithFloodPublish(*options.floodPublish))
		if *options.score {
			opts = append(opts, g.scoring()...)
		}
		if *options.testExtension {
			opts = append(opts, pubsub.WithTestExtension(pubsub.TestExtensionConfig{
				OnReceiveTestExtension: func(from peer.ID) { p.emit("testExtension", answer{"peer": from.String()}) },
			}))
		}
		if *options.partial != "" {
			g.partial = newPartials(g)
			opts = append(opts, pubsub.WithPartialMessagesExtension(g.partial.extension()))
		}
		g.ps, err = pubsub.NewGossipSub(context.Background(), p.host, opts...)
	default:
		err = fmt.Errorf("no such pubsub: %s", *options.kind)
	}
	return g, err
}

// scoring punishes invalid messages (-5 n² each topic) and broken promises (-n²), and adds what setScore says. Addresses
// count for nothing, as all peers of the lab have the same.
func (g *gossip) scoring() []pubsub.Option {
	return []pubsub.Option{
		pubsub.WithPeerScore(&pubsub.PeerScoreParams{
			Topics: map[string]*pubsub.TopicScoreParams{},
			AppSpecificScore: func(id peer.ID) float64 {
				g.mu.Lock()
				defer g.mu.Unlock()
				return g.assumed[id]
			},
			AppSpecificWeight: 1, BehaviourPenaltyWeight: -1, BehaviourPenaltyDecay: 0.99,
			DecayInterval: time.Second, DecayToZero: 0.01, RetainScore: time.Hour,
		}, &pubsub.PeerScoreThresholds{
			GossipThreshold: -10, PublishThreshold: -20, GraylistThreshold: -40, OpportunisticGraftThreshold: 1,
		}),
		pubsub.WithPeerScoreInspect(func(scores map[peer.ID]*pubsub.PeerScoreSnapshot) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.scores = scores
		}, 100*time.Millisecond),
	}
}

var topicScore = &pubsub.TopicScoreParams{
	TopicWeight: 1, TimeInMeshWeight: 0.01, TimeInMeshQuantum: time.Second, TimeInMeshCap: 10,
	FirstMessageDeliveriesWeight: 1, FirstMessageDeliveriesDecay: 0.9, FirstMessageDeliveriesCap: 10,
	InvalidMessageDeliveriesWeight: -5, InvalidMessageDeliveriesDecay: 0.99,
}

// topic joins, with a validator that others' messages can choose the verdict of.
func (g *gossip) topic(name string) (*pubsub.Topic, error) {
	g.joining.Lock()
	defer g.joining.Unlock()
	if t := g.topics[name]; t != nil {
		return t, nil
	}
	self := g.lab.host.ID()
	err := g.ps.RegisterTopicValidator(name, func(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		switch {
		case from != self && strings.HasPrefix(string(m.Data), "reject:"):
			return pubsub.ValidationReject
		case from != self && strings.HasPrefix(string(m.Data), "ignore:"):
			return pubsub.ValidationIgnore
		}
		return pubsub.ValidationAccept
	})
	if err != nil {
		return nil, err
	}
	opts := []pubsub.TopicOpt{}
	switch *g.options.partial {
	case "":
	case "request":
		opts = append(opts, pubsub.RequestPartialMessages())
	case "support":
		opts = append(opts, pubsub.SupportsPartialMessages())
	default:
		return nil, fmt.Errorf("no such use of partial messages: %s", *g.options.partial)
	}
	t, err := g.ps.Join(name, opts...)
	if err != nil {
		return nil, err
	}
	if *g.options.score {
		if err := t.SetScoreParams(topicScore); err != nil {
			return nil, err
		}
	}
	g.topics[name] = t
	return t, nil
}

func idsOf(ids []peer.ID) []string {
	list := []string{}
	for _, id := range ids {
		list = append(list, id.String())
	}
	slices.Sort(list)
	return list
}

func aboutMessage(m *pubsub.Message) answer {
	about := answer{
		"topic": m.GetTopic(), "from": nil, "seqno": nil, "data": toBase64(m.Data), "id": hex.EncodeToString([]byte(m.ID)),
		"receivedFrom": m.ReceivedFrom.String(),
	}
	if len(m.From) > 0 {
		about["from"] = m.GetFrom().String()
	}
	if len(m.Seqno) > 0 {
		about["seqno"] = hex.EncodeToString(m.Seqno)
	}
	return about
}

func cmdSub(_ context.Context, g *gossip, r *request) (answer, error) {
	t, err := g.topic(r.Topic)
	if err != nil {
		return nil, err
	}
	g.joining.Lock()
	defer g.joining.Unlock()
	if g.subs[r.Topic] != nil {
		return nil, nil
	}
	sub, err := t.Subscribe(pubsub.WithBufferSize(4096))
	if err != nil {
		return nil, err
	}
	g.subs[r.Topic] = sub
	go func() {
		for {
			m, err := sub.Next(context.Background())
			if err != nil {
				return
			}
			if m.ReceivedFrom == g.lab.host.ID() {
				continue
			}
			if strings.HasPrefix(r.Topic, stormTopics) {
				counted(m.Data)
			} else {
				g.lab.emit("message", aboutMessage(m))
			}
		}
	}()
	return nil, nil
}

func cmdUnsub(_ context.Context, g *gossip, r *request) (answer, error) {
	g.joining.Lock()
	defer g.joining.Unlock()
	sub := g.subs[r.Topic]
	if sub == nil {
		return nil, fmt.Errorf("not subscribed to %s", r.Topic)
	}
	delete(g.subs, r.Topic)
	sub.Cancel()
	return nil, nil
}

func cmdPub(ctx context.Context, g *gossip, r *request) (answer, error) {
	data, err := fromBase64(r.Data)
	if err != nil {
		return nil, err
	}
	t, err := g.topic(r.Topic)
	if err != nil {
		return nil, err
	}
	return nil, t.Publish(ctx, data)
}

func cmdTopicPeers(_ context.Context, g *gossip, r *request) (answer, error) {
	return answer{"peers": idsOf(g.ps.ListPeers(r.Topic))}, nil
}

func cmdMesh(_ context.Context, g *gossip, r *request) (answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := []peer.ID{}
	for id := range g.meshes[r.Topic] {
		ids = append(ids, id)
	}
	return answer{"peers": idsOf(ids)}, nil
}

func cmdTopics(_ context.Context, g *gossip, _ *request) (answer, error) {
	topics := append([]string{}, g.ps.GetTopics()...)
	slices.Sort(topics)
	return answer{"topics": topics}, nil
}

// cmdScore answers with what the last inspection saw, at most 100 ms ago.
func cmdScore(_ context.Context, g *gossip, r *request) (answer, error) {
	id, err := peer.Decode(r.Peer)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.scores[id]
	if s == nil {
		return nil, errors.New("no score of this peer")
	}
	topics := answer{}
	for name, t := range s.Topics {
		topics[name] = answer{
			"timeInMeshMs": t.TimeInMesh.Milliseconds(), "firstMessageDeliveries": t.FirstMessageDeliveries,
			"meshMessageDeliveries": t.MeshMessageDeliveries, "invalidMessageDeliveries": t.InvalidMessageDeliveries,
		}
	}
	return answer{"score": s.Score, "app": s.AppSpecificScore, "behaviourPenalty": s.BehaviourPenalty, "topics": topics}, nil
}

func cmdSetScore(_ context.Context, g *gossip, r *request) (answer, error) {
	id, err := peer.Decode(r.Peer)
	if err != nil {
		return nil, err
	}
	if r.Score == nil {
		return nil, errors.New("score is needed")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.assumed[id] = *r.Score
	return nil, nil
}

// tracer knows the meshes, and tells what happens with --pubsub-trace.
type tracer struct{ g *gossip }

func (t tracer) tell(event string, about answer) {
	if *t.g.options.trace {
		t.g.lab.emit(event, about)
	}
}

func (t tracer) Graft(p peer.ID, topic string) {
	t.g.mu.Lock()
	if t.g.meshes[topic] == nil {
		t.g.meshes[topic] = map[peer.ID]bool{}
	}
	t.g.meshes[topic][p] = true
	t.g.mu.Unlock()
	t.tell("graft", answer{"peer": p.String(), "topic": topic})
}

func (t tracer) Prune(p peer.ID, topic string) {
	t.g.mu.Lock()
	delete(t.g.meshes[topic], p)
	t.g.mu.Unlock()
	t.tell("prune", answer{"peer": p.String(), "topic": topic})
}

func (t tracer) Leave(topic string) {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	delete(t.g.meshes, topic)
}

func (t tracer) OnNewOutboundStream(p peer.ID, name protocol.ID) {
	t.tell("pubsubPeer", answer{"peer": p.String(), "protocol": name})
}

func (t tracer) OnClosedOutboundStream(p peer.ID) {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	for _, mesh := range t.g.meshes {
		delete(mesh, p)
	}
}

func (t tracer) RejectMessage(m *pubsub.Message, reason string) {
	about := aboutMessage(m)
	about["reason"] = reason
	t.tell("reject", about)
}

func (t tracer) DuplicateMessage(m *pubsub.Message) { t.tell("duplicate", aboutMessage(m)) }

func (t tracer) RecvRPC(rpc *pubsub.RPC) {
	if *t.g.options.trace {
		t.tell("rpcReceived", aboutRPC(rpc, rpc.From()))
	}
}

func (t tracer) SendRPC(rpc *pubsub.RPC, p peer.ID) {
	if *t.g.options.trace {
		t.tell("rpcSent", aboutRPC(rpc, p))
	}
}

func (t tracer) DropRPC(_ *pubsub.RPC, p peer.ID)   { t.tell("rpcDropped", answer{"peer": p.String()}) }
func (tracer) Join(string)                          {}
func (tracer) ValidateMessage(*pubsub.Message)      {}
func (tracer) DeliverMessage(*pubsub.Message)       {}
func (tracer) ThrottlePeer(peer.ID)                 {}
func (tracer) UndeliverableMessage(*pubsub.Message) {}

func hexes(ids []string) []string {
	list := []string{}
	for _, id := range ids {
		list = append(list, hex.EncodeToString([]byte(id)))
	}
	return list
}

// aboutRPC has what is in the message, and only that.
func aboutRPC(rpc *pubsub.RPC, p peer.ID) answer {
	about := answer{"peer": p.String()}
	add := func(name string, one any) {
		list, _ := about[name].([]any)
		about[name] = append(list, one)
	}
	for _, s := range rpc.Subscriptions {
		one := answer{"topic": s.GetTopicid(), "subscribe": s.GetSubscribe()}
		if s.GetRequestsPartial() || s.GetSupportsSendingPartial() {
			one["requestsPartial"], one["supportsSendingPartial"] = s.GetRequestsPartial(), s.GetSupportsSendingPartial()
		}
		add("subscriptions", one)
	}
	for _, m := range rpc.Publish {
		add("publish", answer{"topic": m.GetTopic(), "seqno": hex.EncodeToString(m.GetSeqno()), "size": len(m.GetData())})
	}
	control := rpc.GetControl()
	for _, c := range control.GetIhave() {
		add("ihave", answer{"topic": c.GetTopicID(), "ids": hexes(c.GetMessageIDs())})
	}
	for _, c := range control.GetIwant() {
		add("iwant", answer{"ids": hexes(c.GetMessageIDs())})
	}
	for _, c := range control.GetGraft() {
		add("graft", answer{"topic": c.GetTopicID()})
	}
	for _, c := range control.GetPrune() {
		peers := []string{}
		for _, info := range c.GetPeers() {
			peers = append(peers, peer.ID(info.GetPeerID()).String())
		}
		add("prune", answer{"topic": c.GetTopicID(), "backoff": c.GetBackoff(), "peers": peers})
	}
	for _, c := range control.GetIdontwant() {
		add("idontwant", answer{"ids": hexes(c.GetMessageIDs())})
	}
	if e := control.GetExtensions(); e != nil {
		about["extensions"] = answer{"partialMessages": e.GetPartialMessages(), "testExtension": e.GetTestExtension()}
	}
	if m := rpc.GetPartial(); m != nil {
		about["partial"] = aboutPartial(m)
	}
	return about
}

var toStderr = slog.New(slog.NewTextHandler(os.Stderr, nil))
