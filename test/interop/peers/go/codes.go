package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

// serveCodes answers /code/1.0.0: reads a code and resets the stream with it.
func serveCodes(h host.Host) {
	h.SetStreamHandler("/code/1.0.0", func(s network.Stream) {
		var code uint32
		if err := binary.Read(s, binary.BigEndian, &code); err != nil {
			s.Reset()
			return
		}
		s.ResetWithError(network.StreamErrorCode(code))
	})
}

// cmdEnding opens a stream, writes a byte and tells with which code it ends, and whether that was the stream's own end
// or its connection's.
func cmdEnding(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, p.host, id, r.Protocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	if _, err = s.Write([]byte{1}); err == nil {
		_, err = io.ReadAll(s)
	}
	var stream *network.StreamError
	var conn *network.ConnError
	switch {
	case errors.As(err, &stream):
		return answer{"of": "stream", "remote": stream.Remote, "code": stream.ErrorCode}, nil
	case errors.As(err, &conn):
		return answer{"of": "connection", "remote": conn.Remote, "code": conn.ErrorCode}, nil
	case err != nil:
		return answer{"of": "unknown", "error": err.Error()}, nil
	}
	return answer{"of": "end"}, nil
}

// cmdResetStream opens a stream, writes a byte and resets it with a code.
func cmdResetStream(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, p.host, id, r.Protocol)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write([]byte{1}); err != nil {
		return nil, err
	}
	// The other side must have it before the reset overtakes the negotiation.
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		return nil, err
	}
	return nil, s.ResetWithError(network.StreamErrorCode(r.Code))
}

// cmdCloseWith closes every connection with a peer with a code.
func cmdCloseWith(ctx context.Context, p *lab, r *request) (answer, error) {
	id, err := p.target(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, c := range p.host.Network().ConnsToPeer(id) {
		if err := c.CloseWithError(network.ConnErrorCode(r.Code)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
