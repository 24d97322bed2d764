package main

import (
	"context"
	"errors"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	// Kubo's: its module has the version.
	namesys "github.com/libp2p/go-libp2p-pubsub-router"
)

// The value store of IPNS over pubsub serves /libp2p/fetch/0.0.1, and fetches from whoever subscribes to a key's topic.
// It is made with the first of these commands, so that other runs have no pubsub.
func init() {
	commands["fetchPut"] = cmdFetchPut
	commands["fetchSubscribe"] = cmdFetchSubscribe
	commands["fetchGot"] = cmdFetchGot
}

var values struct {
	sync.Mutex
	store *namesys.PubsubValueStore
}

// anyRecord takes every value; a later one is no better.
type anyRecord struct{}

func (anyRecord) Validate(string, []byte) error        { return nil }
func (anyRecord) Select(string, [][]byte) (int, error) { return 0, nil }

func valueStore(p *lab) (*namesys.PubsubValueStore, error) {
	values.Lock()
	defer values.Unlock()
	if values.store != nil {
		return values.store, nil
	}
	ps, err := pubsub.NewFloodSub(context.Background(), p.host)
	if err != nil {
		return nil, err
	}
	values.store, err = namesys.NewPubsubValueStore(context.Background(), p.host, ps, anyRecord{})
	return values.store, err
}

// withKey gives a command the store and the key, which is in base64.
func withKey(p *lab, r *request, run func(store *namesys.PubsubValueStore, key string) (answer, error)) (answer, error) {
	if r.Base64 == nil {
		return nil, errors.New("base64 is needed: the key")
	}
	key, err := fromBase64(*r.Base64)
	if err != nil {
		return nil, err
	}
	store, err := valueStore(p)
	if err != nil {
		return nil, err
	}
	return run(store, string(key))
}

func cmdFetchPut(ctx context.Context, p *lab, r *request) (answer, error) {
	value, err := fromBase64(r.Bytes)
	if err != nil {
		return nil, err
	}
	return withKey(p, r, func(store *namesys.PubsubValueStore, key string) (answer, error) {
		return nil, store.PutValue(ctx, key, value)
	})
}

func cmdFetchSubscribe(_ context.Context, p *lab, r *request) (answer, error) {
	return withKey(p, r, func(store *namesys.PubsubValueStore, key string) (answer, error) {
		return answer{"topic": namesys.KeyToTopic(key)}, store.Subscribe(key)
	})
}

// cmdFetchGot answers with the value that is known for a key by now; an error when there is none.
func cmdFetchGot(ctx context.Context, p *lab, r *request) (answer, error) {
	return withKey(p, r, func(store *namesys.PubsubValueStore, key string) (answer, error) {
		value, err := store.GetValue(ctx, key)
		if err != nil {
			return nil, err
		}
		return answer{"bytes": toBase64(value)}, nil
	})
}
