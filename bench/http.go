package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/httpapi"
)

const opPointHTTP = "point read by id over HTTP, raw keep-alive client"

// pointOverHTTP compares the API with a handler that only writes the same
// answer: the floor that net/http sets.
func (k *desk) pointOverHTTP(ctx context.Context) (err error) {
	if !k.wants(opPointHTTP) {
		return nil
	}
	api, err := httpapi.New(httpapi.Config{Node: k.branch, Role: "replica", Registry: prometheus.NewRegistry(),
		Authenticate: func(string) (string, error) { return "bench", nil },
		Status:       func(context.Context) (any, error) { return k.branch.Status(), nil }})
	if err != nil {
		return err
	}
	apiAddr, stopAPI, err := serve(api)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAPI()) }()
	sample, err := getOnce("http://" + apiAddr + k.contactPath())
	if err != nil {
		return err
	}
	bareAddr, stopBare, err := serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(sample)
	}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopBare()) }()
	want := budget{"≥ 0.6 of a bare handler", func(r result) bool { return r.ratio >= 0.6 }}
	for _, clients := range []int{1, 16} {
		mine, err := dialRaw(apiAddr, clients)
		if err != nil {
			return err
		}
		floor, err := dialRaw(bareAddr, clients)
		if err != nil {
			return err
		}
		err = k.contest(ctx, opPointHTTP, clients, want, side{ours, func(_ context.Context, n int) error { return mine[n].get(k.contactPath()) }},
			side{bare, func(_ context.Context, n int) error { return floor[n].get(k.contactPath()) }})
		if err = errors.Join(err, closeAll(mine), closeAll(floor)); err != nil {
			return err
		}
	}
	return nil
}

func (k *desk) contactPath() string {
	return "/api/v1/contact/" + recordID(catalog.Contact, 1+rand.IntN(k.size.contacts)).String()
}

// serve serves a handler on a loopback port until stop.
func serve(h http.Handler) (addr string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return l.Addr().String(), func() error {
		err := s.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

func getOnce(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return body, err
}

// A rawClient speaks just enough HTTP to cost little: a request line, and
// answers with a Content-Length.
type rawClient struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

func dialRaw(addr string, n int) ([]*rawClient, error) {
	var all []*rawClient
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, errors.Join(err, closeAll(all))
		}
		all = append(all, &rawClient{conn: c, in: bufio.NewReaderSize(c, 16<<10)})
	}
	return all, nil
}

func closeAll(list []*rawClient) error {
	var errs []error
	for _, c := range list {
		errs = append(errs, c.conn.Close())
	}
	return errors.Join(errs...)
}

func (c *rawClient) get(path string) error {
	c.out = append(append(append(c.out[:0], "GET "...), path...), " HTTP/1.1\r\nHost: bench\r\n\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("GET %s: %s", path, bytes.TrimSpace(status))
	}
	length, err := c.header()
	if err != nil {
		return err
	}
	_, err = c.in.Discard(length)
	return err
}

// header reads up to the body and returns how long that is.
func (c *rawClient) header() (length int, err error) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			return length, nil
		}
		if name, v, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(v)); err != nil {
				return 0, err
			}
		}
	}
}
