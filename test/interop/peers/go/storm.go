package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// All nodes of the process.
var labs []*lab

// Messages of topics that begin so are counted, not told.
const stormTopics = "storm/"

func init() {
	commands["stormJoin"], commands["storm"], commands["usage"] = cmdStormJoin, cmdStorm, cmdUsage
}

func cpuMs() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	ms := func(t syscall.Timeval) float64 { return float64(t.Sec)*1000 + float64(t.Usec)/1000 }
	return ms(u.Utime) + ms(u.Stime)
}

func cmdUsage(_ context.Context, _ *lab, _ *request) (answer, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	rss := 0
	for line := range strings.SplitSeq(string(status), "\n") {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			rss, _ = strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return answer{"cpuMs": cpuMs(), "rssBytes": rss * 1024}, nil
}

// cmdStormJoin connects all nodes of the process to each other and subscribes them to the topics storm/0, storm/1, ...
func cmdStormJoin(ctx context.Context, _ *lab, r *request) (answer, error) {
	for i, p := range labs {
		if p.pubsub == nil {
			return nil, errors.New("this peer runs without --pubsub")
		}
		about, err := p.about()
		if err != nil {
			return nil, err
		}
		for _, other := range labs[i+1:] {
			if _, err := connect(ctx, other.host, about["addrs"].([]string)[0]); err != nil {
				return nil, err
			}
		}
	}
	degree := 0
	for n := range max(1, r.Count) {
		for _, p := range labs {
			if _, err := cmdSub(ctx, p.pubsub, &request{Topic: fmt.Sprint(stormTopics, n)}); err != nil {
				return nil, err
			}
		}
	}
	last := fmt.Sprint(stormTopics, max(1, r.Count)-1)
	for _, p := range labs {
		for len(p.pubsub.ps.ListPeers(last)) < len(labs)-1 {
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return nil, err
			}
		}
	}
	// Meshes are there after a heartbeat or two.
	if err := pause(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	for _, p := range labs {
		p.pubsub.mu.Lock()
		degree += len(p.pubsub.meshes[last])
		p.pubsub.mu.Unlock()
	}
	return answer{"meshDegree": float64(degree) / float64(len(labs))}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// running is the storm that is on; deliveries of others are not counted.
var running struct {
	sync.Mutex
	number    uint32
	sent      []time.Time
	missing   []int
	latencies []float64
	delivered chan struct{}
}

// counted takes a message of a storm: its number and the message's own, then anything.
func counted(data []byte) {
	now := time.Now()
	running.Lock()
	defer running.Unlock()
	if len(data) < 8 || binary.BigEndian.Uint32(data) != running.number {
		return
	}
	i := int(binary.BigEndian.Uint32(data[4:]))
	running.latencies = append(running.latencies, float64(now.Sub(running.sent[i]).Microseconds())/1000)
	if running.missing[i]--; running.missing[i] == 0 {
		running.delivered <- struct{}{}
	}
}

// cmdStorm publishes `count` messages of `size` bytes from all nodes by turns, with `parallel` of them on their way at a
// time, or `perSecond` of them, and answers when all of them are everywhere.
func cmdStorm(ctx context.Context, _ *lab, r *request) (answer, error) {
	if r.Size == nil || r.Count <= 0 || *r.Size < 8 {
		return nil, errors.New("count and size (8 or more) are needed")
	}
	topic := stormTopics + "0"
	missing := make([]int, r.Count)
	for i := range missing {
		missing[i] = len(labs) - 1
	}
	running.Lock()
	running.number++
	running.sent, running.missing = make([]time.Time, r.Count), missing
	running.latencies, running.delivered = nil, make(chan struct{}, r.Count)
	number, delivered := running.number, running.delivered
	running.Unlock()
	data := make([]byte, *r.Size)
	rand.Read(data)
	done := 0
	cpu, start := cpuMs(), time.Now()
	wait := func(d time.Duration) bool {
		select {
		case <-delivered:
			done++
			return true
		case <-ctx.Done():
			return false
		case <-time.After(d):
			return true
		}
	}
	for i := range r.Count {
		if r.PerSecond > 0 {
			due := start.Add(time.Duration(float64(i) / r.PerSecond * float64(time.Second)))
			for time.Now().Before(due) && wait(time.Until(due)) {
			}
		} else {
			for i-done >= max(1, r.Parallel) && wait(time.Second) {
			}
		}
		if ctx.Err() != nil {
			break
		}
		own := append([]byte{}, data...)
		binary.BigEndian.PutUint32(own, number)
		binary.BigEndian.PutUint32(own[4:], uint32(i))
		running.Lock()
		running.sent[i] = time.Now()
		running.Unlock()
		g := labs[i%len(labs)].pubsub
		t, err := g.topic(topic)
		if err != nil {
			return nil, err
		}
		if err := t.Publish(ctx, own); err != nil {
			return nil, err
		}
	}
	for done < r.Count && wait(time.Second) {
	}
	seconds, used := time.Since(start).Seconds(), cpuMs()-cpu
	running.Lock()
	defer running.Unlock()
	running.number++
	return answer{"seconds": seconds, "cpuMs": used, "latencyMs": running.latencies, "expected": r.Count * (len(labs) - 1)}, nil
}
