package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-graphsync/storeutil"
	ipldformat "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	_ "github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/ipld/go-ipld-prime/traversal/selector"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	"github.com/multiformats/go-multicodec"
	"github.com/multiformats/go-multihash"
)

func init() {
	commands["put"] = cmdPut
	commands["get"] = cmdGet
	commands["carImport"] = cmdCarImport
	commands["carExport"] = cmdCarExport
	commands["walk"] = cmdWalk
	commands["selectorParse"] = cmdSelectorParse
}

// dagJSON gives the node of a parameter, which is DAG-JSON inside the command's line.
func dagJSON(text json.RawMessage) (datamodel.Node, error) {
	if len(text) == 0 {
		return nil, errors.New("DAG-JSON is needed")
	}
	return ipld.Decode(text, dagjson.Decode)
}

func toDagJSON(node datamodel.Node) (json.RawMessage, error) {
	return ipld.Encode(node, dagjson.Encode)
}

func cmdPut(ctx context.Context, p *lab, r *request) (answer, error) {
	data, err := fromBase64(r.Bytes)
	if err != nil {
		return nil, err
	}
	var codec, hash multicodec.Code
	if r.Hash == "" {
		r.Hash = "sha2-256"
	}
	if err := errors.Join(codec.Set(r.Codec), hash.Set(r.Hash)); err != nil {
		return nil, err
	}
	if r.Version == 0 {
		r.Version = 1
	}
	sum, err := multihash.Sum(data, uint64(hash), -1)
	if err != nil {
		return nil, err
	}
	c := cid.NewCidV1(uint64(codec), sum)
	block, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return nil, err
	}
	return answer{"cid": c.String()}, p.exchange.blocks.Put(ctx, block)
}

func cmdGet(ctx context.Context, p *lab, r *request) (answer, error) {
	c, err := cid.Decode(r.Cid)
	if err != nil {
		return nil, err
	}
	block, err := p.exchange.blocks.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return answer{"bytes": toBase64(block.RawData())}, nil
}

// cmdCarImport stores the blocks of a CAR, whose hashes the reader verifies. What came before a failure stays.
func cmdCarImport(ctx context.Context, p *lab, r *request) (answer, error) {
	file, err := os.Open(r.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader, err := car.NewBlockReader(file)
	if err != nil {
		return nil, err
	}
	roots, cids := []string{}, []string{}
	for _, root := range reader.Roots {
		roots = append(roots, root.String())
	}
	for {
		block, err := reader.Next()
		if err == io.EOF {
			return answer{"roots": roots, "cids": cids, "version": reader.Version}, nil
		}
		if err != nil {
			return nil, err
		}
		cids = append(cids, block.Cid().String())
		if err := p.exchange.blocks.Put(ctx, block); err != nil {
			return nil, err
		}
	}
}

// cmdCarExport writes what a selector reaches, in the order of the traversal; without a selector, everything. With
// roots instead, it writes those in the header and the blocks in cids.
func cmdCarExport(ctx context.Context, p *lab, r *request) (answer, error) {
	if r.Version != 1 && r.Version != 2 {
		return nil, errors.New("version is needed: 1 or 2")
	}
	if len(r.Roots) > 0 {
		return carOfBlocks(ctx, p, r)
	}
	root, err := cid.Decode(r.Root)
	if err != nil {
		return nil, err
	}
	sel := selectorparse.CommonSelector_ExploreAllRecursively
	if len(r.Selector) > 0 {
		if sel, err = dagJSON(r.Selector); err != nil {
			return nil, err
		}
	}
	lsys := storeutil.LinkSystemForBlockstore(p.exchange.blocks)
	if r.Version == 2 {
		err = car.TraverseToFile(ctx, &lsys, root, sel, r.Path)
	} else {
		err = fileOf(r.Path, func(file *os.File) error {
			_, err := car.TraverseV1(ctx, &lsys, root, sel, file)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return sizeOf(r.Path)
}

func fileOf(path string, write func(file *os.File) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

func sizeOf(path string) (answer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return answer{"size": info.Size()}, nil
}

func carOfBlocks(ctx context.Context, p *lab, r *request) (answer, error) {
	roots := []cid.Cid{}
	for _, text := range r.Roots {
		root, err := cid.Decode(text)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	err := fileOf(r.Path, func(file *os.File) error {
		out, err := storage.NewReadableWritable(file, roots, car.WriteAsCarV1(r.Version == 1), car.AllowDuplicatePuts(true), car.UseWholeCIDs(true), car.StoreIdentityCIDs(true))
		if err != nil {
			return err
		}
		for _, text := range r.Cids {
			c, err := cid.Decode(text)
			if err != nil {
				return err
			}
			block, err := p.exchange.blocks.Get(ctx, c)
			if err != nil {
				return err
			}
			if err := out.Put(ctx, c.KeyString(), block.RawData()); err != nil {
				return err
			}
		}
		return out.Finalize()
	})
	if err != nil {
		return nil, err
	}
	return sizeOf(r.Path)
}

func cmdSelectorParse(_ context.Context, _ *lab, r *request) (answer, error) {
	node, err := dagJSON(r.Selector)
	if err != nil {
		return nil, err
	}
	_, err = selector.ParseSelector(node)
	return nil, err
}

// cmdWalk traverses as GraphSync does: the root is a link too, dag-pb has its schema, and unixfs its reifiers. What came
// before a failure is told with the failure.
func cmdWalk(ctx context.Context, p *lab, r *request) (answer, error) {
	root, err := cid.Decode(r.Root)
	if err != nil {
		return nil, err
	}
	node, err := dagJSON(r.Selector)
	if err != nil {
		return nil, err
	}
	sel, err := selector.ParseSelector(node)
	if err != nil {
		return nil, err
	}
	links, nodes := []answer{}, []answer{}
	lsys := storeutil.LinkSystemForBlockstore(p.exchange.blocks)
	load := lsys.StorageReadOpener
	lsys.StorageReadOpener = func(lctx linking.LinkContext, link datamodel.Link) (io.Reader, error) {
		data, err := load(lctx, link)
		about := answer{"cid": link.String(), "path": lctx.LinkPath.String()}
		links = append(links, about)
		if ipldformat.IsNotFound(err) && r.SkipMissing {
			about["missing"] = true
			return nil, traversal.SkipMe{}
		}
		return data, err
	}
	err = walk(ctx, &lsys, cidlink.Link{Cid: root}, sel, r, func(progress traversal.Progress, node datamodel.Node, reason traversal.VisitReason) error {
		matched := reason == traversal.VisitReason_SelectionMatch
		if !matched && !r.All {
			return nil
		}
		about := answer{"path": progress.Path.String(), "kind": node.Kind().String()}
		if r.All {
			about["matched"] = matched
		}
		if matched {
			value, err := scalar(node)
			if err != nil {
				return err
			}
			if value != nil {
				about["value"] = value
			}
		}
		nodes = append(nodes, about)
		return nil
	})
	result := answer{"links": links, "nodes": nodes}
	if err != nil {
		result["error"] = err.Error()
		var budget *traversal.ErrBudgetExceeded
		if errors.As(err, &budget) {
			result["budget"] = budget.BudgetKind
		}
	}
	return result, nil
}

func walk(ctx context.Context, lsys *linking.LinkSystem, root datamodel.Link, sel selector.Selector, r *request, visit traversal.AdvVisitFn) error {
	choose := dagpb.AddSupportToChooser(basicnode.Chooser)
	var budget *traversal.Budget
	if r.MaxLinks > 0 || r.MaxNodes > 0 {
		budget = &traversal.Budget{LinkBudget: math.MaxInt64, NodeBudget: math.MaxInt64}
		if r.MaxLinks > 0 {
			budget.LinkBudget = r.MaxLinks
		}
		if r.MaxNodes > 0 {
			budget.NodeBudget = r.MaxNodes
		}
	}
	prototype, err := choose(root, linking.LinkContext{Ctx: ctx})
	if err != nil {
		return err
	}
	// As GraphSync counts: the root takes of the budget too.
	if budget != nil {
		if budget.LinkBudget--; budget.LinkBudget <= 0 {
			return &traversal.ErrBudgetExceeded{BudgetKind: "link", Link: root}
		}
	}
	node, err := lsys.Load(linking.LinkContext{Ctx: ctx}, root, prototype)
	if err != nil {
		return err
	}
	return traversal.Progress{
		Cfg:    &traversal.Config{Ctx: ctx, LinkSystem: *lsys, LinkTargetNodePrototypeChooser: choose, LinkVisitOnlyOnce: r.Once},
		Budget: budget,
	}.WalkAdv(node, sel, visit)
}

// scalar is the DAG-JSON of a node that has no other nodes in it.
func scalar(node datamodel.Node) (json.RawMessage, error) {
	switch node.Kind() {
	case datamodel.Kind_Map, datamodel.Kind_List:
		return nil, nil
	case datamodel.Kind_Bytes:
		// A file is a large bytes node that may lie in many blocks, so it must not be read by its DAG-JSON.
		data, err := node.AsBytes()
		if err != nil {
			return nil, err
		}
		node = basicnode.NewBytes(data)
	}
	var out bytes.Buffer
	if err := dagjson.Encode(node, &out); err != nil {
		return nil, fmt.Errorf("as DAG-JSON: %w", err)
	}
	return out.Bytes(), nil
}
