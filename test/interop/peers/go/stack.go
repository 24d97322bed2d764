package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
)

// stack says what a host is made of: security in order of preference, certificates of wss, a pre-shared key.
type stack struct {
	security, muxer, tlsCert, tlsKey, tlsCA, psk *string
}

func stackFlags() *stack {
	return &stack{
		security: flag.String("security", "noise", "noise, tls or both with a comma, in order of preference"),
		muxer:    flag.String("muxer", "yamux", "yamux"),
		tlsCert:  flag.String("tls-cert", "", "PEM file with the certificate of /tls/ws listeners"),
		tlsKey:   flag.String("tls-key", "", "PEM file with its key"),
		tlsCA:    flag.String("tls-ca", "", "PEM file with the authorities trusted when dialling /tls/ws"),
		psk:      flag.String("psk", "", "swarm.key file: be a member of that private network"),
	}
}

func (s *stack) options() ([]libp2p.Option, error) {
	ws, err := s.websocket()
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.NoTransports,
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New, ws...),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.UserAgent("rhiza-lab-go"),
	}
	for name := range strings.SplitSeq(*s.security, ",") {
		switch name {
		case "noise":
			opts = append(opts, libp2p.Security(noise.ID, noise.New))
		case "tls":
			opts = append(opts, libp2p.Security(libp2ptls.ID, libp2ptls.New))
		default:
			return nil, fmt.Errorf("no such security: %s", name)
		}
	}
	if *s.psk != "" {
		file, err := os.Open(*s.psk)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		key, err := pnet.DecodeV1PSK(file)
		if err != nil {
			return nil, err
		}
		opts = append(opts, libp2p.PrivateNetwork(key))
	}
	if *s.muxer != "yamux" {
		return nil, fmt.Errorf("no such muxer: %s", *s.muxer)
	}
	return append(opts, libp2p.Muxer(yamux.ID, yamux.DefaultTransport)), nil
}

func (s *stack) websocket() ([]any, error) {
	var opts []any
	if *s.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(*s.tlsCert, *s.tlsKey)
		if err != nil {
			return nil, err
		}
		opts = append(opts, websocket.WithTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}))
	}
	if *s.tlsCA != "" {
		pem, err := os.ReadFile(*s.tlsCA)
		if err != nil {
			return nil, err
		}
		trusted := x509.NewCertPool()
		if !trusted.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", *s.tlsCA)
		}
		opts = append(opts, websocket.WithTLSClientConfig(&tls.Config{RootCAs: trusted}))
	}
	return opts, nil
}
