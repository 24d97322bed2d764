package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync"
	"github.com/ipfs/go-graphsync/cidset"
	"github.com/ipfs/go-graphsync/dedupkey"
	"github.com/ipfs/go-graphsync/donotsendfirstblocks"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipfs/go-graphsync/selectorvalidator"
	"github.com/ipfs/go-graphsync/storeutil"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

func init() {
	for name, run := range map[string]func(ctx context.Context, g *graph, r *request) (answer, error){
		"gsServe": cmdGsServe, "gsRequest": cmdGsRequest, "gsCancel": cmdGsCancel, "gsPause": cmdGsPause,
		"gsUnpause": cmdGsUnpause, "gsUpdate": cmdGsUpdate, "gsStats": cmdGsStats,
	} {
		commands[name] = func(ctx context.Context, p *lab, r *request) (answer, error) {
			if p.graph == nil {
				return nil, errors.New("this peer runs without --graphsync")
			}
			return run(ctx, p.graph, r)
		}
	}
}

// graph is GraphSync over the peer's block store, with the reifiers unixfs and unixfs-preload.
type graph struct {
	lab      *lab
	exchange graphsync.GraphExchange
	mu       sync.Mutex
	// How requests are answered from now on: the last gsServe.
	serving request
	// All requests, own and others', by the text of their ids.
	ids map[string]graphsync.RequestID
	own map[string]*ownRequest
}

type ownRequest struct{ maxLinks uint64 }

// places remembers where in a DAG a block was last looked for or put, as the library tells no path with a block.
type places struct {
	mu    sync.Mutex
	paths map[string]string
}

func (p *places) note(lctx linking.LinkContext, link datamodel.Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paths[link.String()] = lctx.LinkPath.String()
}

func (p *places) of(link datamodel.Link) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paths[link.String()]
}

func (p *places) watch(lsys *linking.LinkSystem) {
	read, write := lsys.StorageReadOpener, lsys.StorageWriteOpener
	lsys.StorageReadOpener = func(lctx linking.LinkContext, link datamodel.Link) (io.Reader, error) {
		p.note(lctx, link)
		return read(lctx, link)
	}
	lsys.StorageWriteOpener = func(lctx linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		out, commit, err := write(lctx)
		return out, func(link datamodel.Link) error {
			p.note(lctx, link)
			return commit(link)
		}, err
	}
}

func newGraph(p *lab) *graph {
	g := &graph{lab: p, ids: map[string]graphsync.RequestID{}, own: map[string]*ownRequest{}}
	lsys := storeutil.LinkSystemForBlockstore(p.exchange.blocks)
	where := &places{paths: map[string]string{}}
	where.watch(&lsys)
	// Whom it answers is for our hook alone.
	g.exchange = gsimpl.New(context.Background(), gsnet.NewFromLibp2pHost(p.host), lsys, gsimpl.RejectAllRequestsByDefault())
	g.respond()
	g.exchange.RegisterOutgoingRequestHook(func(_ peer.ID, r graphsync.RequestData, actions graphsync.OutgoingRequestHookActions) {
		if own := g.ownOf(r.ID()); own != nil && own.maxLinks > 0 {
			actions.MaxLinks(own.maxLinks)
		}
	})
	g.exchange.RegisterIncomingResponseHook(func(id peer.ID, r graphsync.ResponseData, _ graphsync.IncomingResponseHookActions) {
		about := answer{"request": r.RequestID().String(), "peer": id.String(), "status": int(r.Status())}
		list := [][]string{}
		r.Metadata().Iterate(func(c cid.Cid, action graphsync.LinkAction) {
			list = append(list, []string{c.String(), string(action)})
		})
		about["metadata"] = list
		if e, err := extensionsOf(r); err == nil && len(e) > 0 {
			about["extensions"] = e
		}
		p.emit("gsResponse", about)
	})
	g.exchange.RegisterIncomingBlockHook(func(_ peer.ID, r graphsync.ResponseData, b graphsync.BlockData, _ graphsync.IncomingBlockHookActions) {
		about := aboutBlock(r.RequestID(), b)
		about["path"] = where.of(b.Link())
		p.emit("gsBlock", about)
	})
	g.exchange.RegisterReceiverNetworkErrorListener(func(id peer.ID, err error) {
		p.emit("gsReceiveError", answer{"peer": id.String(), "error": err.Error()})
	})
	g.exchange.RegisterNetworkErrorListener(func(id peer.ID, r graphsync.RequestData, err error) {
		p.emit("gsSendError", answer{"request": r.ID().String(), "peer": id.String(), "error": err.Error()})
	})
	return g
}

func aboutBlock(id graphsync.RequestID, b graphsync.BlockData) answer {
	return answer{
		"request": id.String(), "cid": b.Link().String(), "size": b.BlockSize(), "sizeOnWire": b.BlockSizeOnWire(), "index": b.Index(),
	}
}

func (g *graph) ownOf(id graphsync.RequestID) *ownRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.own[id.String()]
}

func (g *graph) served() request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.serving
}

// respond has the hooks of the answering side.
func (g *graph) respond() {
	p := g.lab
	g.exchange.RegisterIncomingRequestHook(func(id peer.ID, r graphsync.RequestData, actions graphsync.IncomingRequestHookActions) {
		g.mu.Lock()
		g.ids[r.ID().String()] = r.ID()
		g.mu.Unlock()
		p.emit("gsRequested", aboutRequest(id, r))
		serving := g.served()
		switch serving.Validate {
		case "", "all":
			actions.ValidateRequest()
		case "depth":
			// Recursion of at most 100, the library's default.
			selectorvalidator.SelectorValidator(100)(id, r, actions)
		case "error":
			actions.TerminateWithError(errors.New("told to fail"))
		}
		if serving.MaxLinks > 0 {
			actions.MaxLinks(uint64(serving.MaxLinks))
		}
		if serving.EchoExtensions {
			for _, e := range foreign(r) {
				actions.SendExtensionData(e)
			}
		}
		if serving.PauseAfter < 0 {
			actions.PauseResponse()
		}
	})
	g.exchange.RegisterOutgoingBlockHook(func(id peer.ID, r graphsync.RequestData, b graphsync.BlockData, actions graphsync.OutgoingBlockHookActions) {
		p.emit("gsSending", aboutBlock(r.ID(), b))
		if after := g.served().PauseAfter; after > 0 && b.Index() == after {
			actions.PauseResponse()
			p.emit("gsPaused", answer{"request": r.ID().String(), "peer": id.String(), "index": b.Index()})
		}
	})
	g.exchange.RegisterRequestUpdatedHook(func(id peer.ID, r, update graphsync.RequestData, actions graphsync.RequestUpdatedHookActions) {
		p.emit("gsUpdated", aboutRequest(id, update))
		serving := g.served()
		if serving.EchoExtensions {
			for _, e := range foreign(update) {
				actions.SendExtensionData(e)
			}
		}
		if serving.UnpauseOnUpdate {
			actions.UnpauseResponse()
		}
	})
	g.exchange.RegisterRequestorCancelledListener(func(id peer.ID, r graphsync.RequestData) {
		p.emit("gsCancelled", answer{"request": r.ID().String(), "peer": id.String()})
	})
	g.exchange.RegisterCompletedResponseListener(func(id peer.ID, r graphsync.RequestData, status graphsync.ResponseStatusCode) {
		p.emit("gsCompleted", answer{"request": r.ID().String(), "peer": id.String(), "status": int(status)})
	})
}

type extended interface {
	Extension(name graphsync.ExtensionName) (datamodel.Node, bool)
}

// extensionNames is what the library has but does not show in its interfaces.
func extensionNames(r extended) []graphsync.ExtensionName {
	if all, is := r.(interface {
		ExtensionNames() []graphsync.ExtensionName
	}); is {
		return all.ExtensionNames()
	}
	if all, is := r.(interface{ ExtensionNames() []string }); is {
		names := []graphsync.ExtensionName{}
		for _, name := range all.ExtensionNames() {
			names = append(names, graphsync.ExtensionName(name))
		}
		return names
	}
	return nil
}

func extensionsOf(r extended) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	for _, name := range extensionNames(r) {
		data, _ := r.Extension(name)
		if data == nil {
			out[string(name)] = json.RawMessage("null")
			continue
		}
		text, err := toDagJSON(data)
		if err != nil {
			return nil, err
		}
		out[string(name)] = text
	}
	return out, nil
}

func foreign(r extended) []graphsync.ExtensionData {
	list := []graphsync.ExtensionData{}
	for _, name := range extensionNames(r) {
		if data, _ := r.Extension(name); !strings.HasPrefix(string(name), "graphsync/") {
			list = append(list, graphsync.ExtensionData{Name: name, Data: data})
		}
	}
	return list
}

func aboutRequest(id peer.ID, r graphsync.RequestData) answer {
	about := answer{"request": r.ID().String(), "peer": id.String(), "type": r.Type(), "priority": r.Priority(), "root": nil, "selector": nil}
	if r.Root() != cid.Undef {
		about["root"] = r.Root().String()
	}
	if s := r.Selector(); s != nil {
		if text, err := toDagJSON(s); err == nil {
			about["selector"] = text
		}
	}
	extensions, err := extensionsOf(r)
	about["extensions"] = extensions
	if err != nil {
		about["extensions"] = err.Error()
	}
	return about
}

// cmdGsServe says how requests that come from now on are answered; what it does not name is back at its default.
func cmdGsServe(_ context.Context, g *graph, r *request) (answer, error) {
	switch r.Validate {
	case "", "all", "depth", "error", "none":
	default:
		return nil, fmt.Errorf("no such validation: %s", r.Validate)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serving = *r
	return nil, nil
}

func extensionData(texts map[string]json.RawMessage) ([]graphsync.ExtensionData, error) {
	list := []graphsync.ExtensionData{}
	for name, text := range texts {
		node, err := dagJSON(text)
		if err != nil {
			return nil, fmt.Errorf("extension %s: %w", name, err)
		}
		list = append(list, graphsync.ExtensionData{Name: graphsync.ExtensionName(name), Data: node})
	}
	return list, nil
}

func requestExtensions(r *request) ([]graphsync.ExtensionData, error) {
	list, err := extensionData(r.Extensions)
	if err != nil {
		return nil, err
	}
	if len(r.DoNotSendCids) > 0 {
		set := cid.NewSet()
		for _, text := range r.DoNotSendCids {
			c, err := cid.Decode(text)
			if err != nil {
				return nil, err
			}
			set.Add(c)
		}
		list = append(list, graphsync.ExtensionData{Name: graphsync.ExtensionDoNotSendCIDs, Data: cidset.EncodeCidSet(set)})
	}
	if r.DoNotSendFirstBlocks > 0 {
		data := donotsendfirstblocks.EncodeDoNotSendFirstBlocks(r.DoNotSendFirstBlocks)
		list = append(list, graphsync.ExtensionData{Name: graphsync.ExtensionsDoNotSendFirstBlocks, Data: data})
	}
	if r.DedupByKey != nil {
		data, err := dedupkey.EncodeDedupKey(*r.DedupByKey)
		if err != nil {
			return nil, err
		}
		list = append(list, graphsync.ExtensionData{Name: graphsync.ExtensionDeDupByKey, Data: data})
	}
	return list, nil
}

// cmdGsRequest answers with the request's id at once; events tell the rest. The request outlives the command.
func cmdGsRequest(ctx context.Context, g *graph, r *request) (answer, error) {
	id, err := g.lab.target(ctx, r)
	if err != nil {
		return nil, err
	}
	root, err := cid.Decode(r.Root)
	if err != nil {
		return nil, err
	}
	sel, err := dagJSON(r.Selector)
	if err != nil {
		return nil, err
	}
	extensions, err := requestExtensions(r)
	if err != nil {
		return nil, err
	}
	request := graphsync.NewRequestID()
	own := &ownRequest{maxLinks: uint64(max(r.MaxLinks, 0))}
	g.mu.Lock()
	g.ids[request.String()], g.own[request.String()] = request, own
	g.mu.Unlock()
	life := context.WithValue(context.Background(), graphsync.RequestIDContextKey{}, request)
	progress, errs := g.exchange.Request(life, id, cidlink.Link{Cid: root}, sel, extensions...)
	go g.follow(request.String(), progress, errs)
	return answer{"request": request.String()}, nil
}

func (g *graph) follow(request string, progress <-chan graphsync.ResponseProgress, errs <-chan error) {
	nodes, failures := 0, []string{}
	for progress != nil || errs != nil {
		select {
		case one, more := <-progress:
			if !more {
				progress = nil
				continue
			}
			nodes++
			about := answer{"request": request, "path": one.Path.String(), "kind": one.Node.Kind().String(), "block": nil, "blockPath": one.LastBlock.Path.String()}
			if one.LastBlock.Link != nil {
				about["block"] = one.LastBlock.Link.String()
			}
			g.lab.emit("gsProgress", about)
		case err, more := <-errs:
			if !more {
				errs = nil
				continue
			}
			failures = append(failures, err.Error())
			g.lab.emit("gsError", answer{"request": request, "error": err.Error(), "type": strings.TrimPrefix(fmt.Sprintf("%T", err), "graphsync.")})
		}
	}
	g.lab.emit("gsDone", answer{"request": request, "nodes": nodes, "errors": failures})
}

func (g *graph) idOf(r *request) (graphsync.RequestID, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, known := g.ids[r.Request]
	if !known {
		return id, fmt.Errorf("no such request: %s", r.Request)
	}
	return id, nil
}

func cmdGsCancel(ctx context.Context, g *graph, r *request) (answer, error) {
	id, err := g.idOf(r)
	if err != nil {
		return nil, err
	}
	return nil, g.exchange.Cancel(ctx, id)
}

func cmdGsPause(ctx context.Context, g *graph, r *request) (answer, error) {
	id, err := g.idOf(r)
	if err != nil {
		return nil, err
	}
	return nil, g.exchange.Pause(ctx, id)
}

func cmdGsUnpause(ctx context.Context, g *graph, r *request) (answer, error) {
	id, err := g.idOf(r)
	if err != nil {
		return nil, err
	}
	extensions, err := extensionData(r.Extensions)
	if err != nil {
		return nil, err
	}
	// The event of a pause is a little earlier than the pause.
	for {
		err := g.exchange.Unpause(ctx, id, extensions...)
		if err == nil || err.Error() != "request is not paused" || ctx.Err() != nil {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func cmdGsUpdate(ctx context.Context, g *graph, r *request) (answer, error) {
	id, err := g.idOf(r)
	if err != nil {
		return nil, err
	}
	extensions, err := extensionData(r.Extensions)
	if err != nil {
		return nil, err
	}
	return nil, g.exchange.SendUpdate(ctx, id, extensions...)
}

func cmdGsStats(_ context.Context, g *graph, _ *request) (answer, error) {
	s := g.exchange.Stats()
	return answer{
		"asked":   answer{"active": s.OutgoingRequests.Active, "pending": s.OutgoingRequests.Pending},
		"serving": answer{"active": s.IncomingRequests.Active, "pending": s.IncomingRequests.Pending},
	}, nil
}
