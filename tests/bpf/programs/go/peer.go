// SPDX-License-Identifier: Apache-2.0
// Go's side of tests/bpf/programs_test.cc (README.md has what each role does): client and server
// with net/http, and a forwarder that lets io.Copy move the bytes, for which Go uses splice(2).
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func check(err error) {
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func client(address, how, dir string) {
	transport := &http.Transport{MaxConnsPerHost: 1}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		if commands.Text() == "new" {
			transport.CloseIdleConnections()
			transport = &http.Transport{MaxConnsPerHost: 1}
			fmt.Println("new")
			continue
		}
		size := strings.Fields(commands.Text())[1]
		payload, err := os.ReadFile(filepath.Join(dir, size))
		check(err)
		request, err := http.NewRequest("GET", "http://"+address+"/"+size, nil)
		if how == "post" {
			request, err = http.NewRequest("POST", "http://"+address+"/"+size, bytes.NewReader(payload))
		}
		check(err)
		reply, err := transport.RoundTrip(request)
		check(err)
		body, err := io.ReadAll(reply.Body)
		check(err)
		check(reply.Body.Close())
		fmt.Printf("%d %x\n", len(body), sha256.Sum256(body))
	}
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func pass(from, to *net.TCPConn) {
	io.Copy(to, from)
	to.CloseWrite()
}

func forward(listener net.Listener, target string) {
	for {
		accepted, err := listener.Accept()
		check(err)
		connected, err := net.Dial("tcp", target)
		check(err)
		go pass(accepted.(*net.TCPConn), connected.(*net.TCPConn))
		go pass(connected.(*net.TCPConn), accepted.(*net.TCPConn))
	}
}

func main() {
	if os.Args[1] == "client" {
		client(net.JoinHostPort(os.Args[2], os.Args[3]), os.Args[4], os.Args[5])
		return
	}
	listener, err := net.Listen("tcp", ":"+os.Args[2])
	check(err)
	if os.Args[1] == "server" {
		check(http.Serve(listener, http.HandlerFunc(answer)))
	}
	forward(listener, net.JoinHostPort(os.Args[3], os.Args[4]))
}
