package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/flynn/noise"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// noisePayload runs the first two messages of Noise XX by hand and gives the responder's static key and payload, as
// the libraries keep both to themselves. It then hangs up.
func cmdNoisePayload(ctx context.Context, p *lab, r *request) (answer, error) {
	a, err := ma.NewMultiaddr(r.Addr)
	if err != nil {
		return nil, err
	}
	transport, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_P2P })
	network, host, err := manet.DialArgs(transport)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		conn.SetDeadline(at)
	}

	hello := "\x13/multistream/1.0.0\n\x07/noise\n"
	if _, err := io.WriteString(conn, hello); err != nil {
		return nil, err
	}
	reply := make([]byte, len(hello))
	if _, err := io.ReadFull(conn, reply); err != nil {
		return nil, err
	}
	if string(reply) != hello {
		return nil, fmt.Errorf("negotiation ended in %q", reply)
	}

	suite := noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)
	static, err := suite.GenerateKeypair(rand.Reader)
	if err != nil {
		return nil, err
	}
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeXX, Initiator: true, StaticKeypair: static,
	})
	if err != nil {
		return nil, err
	}
	first, _, _, err := state.WriteMessage(nil, nil)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(first))), first...)); err != nil {
		return nil, err
	}
	var size uint16
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return nil, err
	}
	second := make([]byte, size)
	if _, err := io.ReadFull(conn, second); err != nil {
		return nil, err
	}
	payload, _, _, err := state.ReadMessage(nil, second)
	if err != nil {
		return nil, err
	}
	if len(state.PeerStatic()) != 32 {
		return nil, errors.New("the responder sent no static key")
	}
	return answer{"static": toBase64(state.PeerStatic()), "payload": toBase64(payload)}, nil
}
