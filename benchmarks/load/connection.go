package main

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"time"
)

// How long an answer may take, and how long a broken connection waits before the next.
const answerSeconds, againSeconds = 15 * time.Second, 100 * time.Millisecond

var (
	errAnswer = errors.New("not an HTTP answer")
	headEnd   = []byte("\r\n\r\n")
	length    = []byte("\r\ncontent-length:")
	chunked   = []byte("\r\ntransfer-encoding: chunked")
	closing   = []byte("\r\nconnection: close")
)

// connection sends requests one after another, over a new socket where the old one ended.
type connection struct {
	address string
	socket  net.Conn
	buffer  []byte
}

// exchange sends a request and reads its whole answer; the answer's status.
func (c *connection) exchange(request []byte) (int, error) {
	if c.socket == nil {
		socket, err := net.DialTimeout("tcp", c.address, answerSeconds)
		if err != nil {
			time.Sleep(againSeconds)
			return 0, err
		}
		c.socket = socket
	}
	c.socket.SetDeadline(time.Now().Add(answerSeconds))
	if _, err := c.socket.Write(request); err != nil {
		// The server may have answered and closed before it had read all.
		if status, _, bad := c.answer(); bad == nil {
			c.close()
			return status, nil
		}
		c.close()
		return 0, err
	}
	status, last, err := c.answer()
	if err != nil || last {
		c.close()
	}
	return status, err
}

// answer reads one; whether the connection ends with it.
func (c *connection) answer() (status int, last bool, err error) {
	have, need := 0, -1
	var end int
	for {
		got, err := c.socket.Read(c.buffer[have:])
		if err != nil {
			return 0, true, err
		}
		have += got
		if need < 0 {
			end = bytes.Index(c.buffer[:have], headEnd)
			if end >= 0 {
				if status, need, last, err = head(c.buffer[:end+2]); err != nil {
					return 0, true, err
				}
			}
		}
		switch {
		case end < 0 && have == len(c.buffer):
			return 0, true, errAnswer
		case end < 0:
		case need == ofChunks && bytes.HasSuffix(c.buffer[:have], []byte("0\r\n\r\n")):
			return status, last, nil
		case need >= 0 && have >= end+4+need:
			return status, last, nil
		case have == len(c.buffer):
			return 0, true, errAnswer
		}
	}
}

func (c *connection) close() {
	if c.socket != nil {
		c.socket.Close()
		c.socket = nil
	}
}

// ofChunks stands for a length where the answer comes in chunks.
const ofChunks = 1 << 30

// head reads an answer's: its status, the length of its body, whether the connection ends with it.
func head(text []byte) (status, size int, last bool, err error) {
	if len(text) < 12 || !bytes.HasPrefix(text, []byte("HTTP/1.")) {
		return 0, 0, true, errAnswer
	}
	if status, err = strconv.Atoi(string(text[9:12])); err != nil {
		return 0, 0, true, errAnswer
	}
	lower(text)
	last = bytes.Contains(text, closing)
	if at := bytes.Index(text, length); at >= 0 {
		rest := text[at+len(length):]
		size, err = strconv.Atoi(string(bytes.TrimSpace(rest[:bytes.IndexByte(rest, '\r')])))
		return status, size, last, err
	}
	if bytes.Contains(text, chunked) {
		return status, ofChunks, last, nil
	}
	return status, 0, last, nil
}

func lower(text []byte) {
	for index, char := range text {
		if 'A' <= char && char <= 'Z' {
			text[index] = char + 'a' - 'A'
		}
	}
}
