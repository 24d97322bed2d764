package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

func init() {
	commands["provide"] = withKad(cmdProvide)
	commands["findProviders"] = withKad(cmdFindProviders)
	commands["findPeer"] = withKad(cmdFindPeer)
	commands["closestPeers"] = withKad(cmdClosestPeers)
	commands["putValue"] = withKad(cmdPutValue)
	commands["getValue"] = withKad(cmdGetValue)
	commands["tableSize"] = withKad(cmdTableSize)
}

// newKad is a DHT without filters of addresses: lan and amino are told apart by their ids alone.
func newKad(h host.Host, network, mode string) (*dht.IpfsDHT, error) {
	opts := []dht.Option{}
	switch network {
	case "":
		return nil, nil
	case "amino":
	case "lan":
		opts = append(opts, dht.ProtocolExtension("/lan"))
	default:
		opts = append(opts, dht.ProtocolPrefix(protocol.ID(network)))
	}
	switch mode {
	case "server":
		opts = append(opts, dht.Mode(dht.ModeServer))
	case "client":
		opts = append(opts, dht.Mode(dht.ModeClient))
	default:
		return nil, fmt.Errorf("no such kad mode: %s", mode)
	}
	d, err := dht.New(h, opts...)
	if err != nil {
		return nil, err
	}
	return d, d.Bootstrap(context.Background())
}

func withKad(run func(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error)) command {
	return func(ctx context.Context, p *lab, r *request) (answer, error) {
		if p.kad == nil {
			return nil, errors.New("this peer runs without --kad")
		}
		return run(ctx, p.kad, r)
	}
}

func infoOf(info peer.AddrInfo) answer {
	addrs := []string{}
	for _, a := range info.Addrs {
		addrs = append(addrs, a.String())
	}
	return answer{"peer": info.ID.String(), "addrs": addrs}
}

func cmdProvide(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error) {
	c, err := cid.Decode(r.Cid)
	if err != nil {
		return nil, err
	}
	return nil, d.Provide(ctx, c, true)
}

func cmdFindProviders(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error) {
	c, err := cid.Decode(r.Cid)
	if err != nil {
		return nil, err
	}
	list := []answer{}
	for info := range d.FindProvidersAsync(ctx, c, r.Count) {
		list = append(list, infoOf(info))
	}
	return answer{"providers": list}, nil
}

func cmdFindPeer(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error) {
	id, err := peer.Decode(r.Peer)
	if err != nil {
		return nil, err
	}
	info, err := d.FindPeer(ctx, id)
	return infoOf(info), err
}

func keyOf(r *request) (string, error) {
	key, err := fromBase64(r.Key)
	return string(key), err
}

func cmdClosestPeers(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error) {
	key, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	ids, err := d.GetClosestPeers(ctx, key)
	list := []string{}
	for _, id := range ids {
		list = append(list, id.String())
	}
	return answer{"peers": list}, err
}

func cmdPutValue(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error) {
	key, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	value, err := fromBase64(r.Value)
	if err != nil {
		return nil, err
	}
	return nil, d.PutValue(ctx, key, value)
}

func cmdGetValue(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error) {
	key, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	value, err := d.GetValue(ctx, key)
	return answer{"value": toBase64(value)}, err
}

func cmdTableSize(ctx context.Context, d *dht.IpfsDHT, r *request) (answer, error) {
	return answer{"size": d.RoutingTable().Size()}, nil
}
