// SPDX-License-Identifier: Apache-2.0
// Node's side of tests/bpf/programs_test.cc (README.md has what each role does): client and server
// with node:http, and a client of redis over a plain socket.
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const readline = require('node:readline');

const [role, ...rest] = process.argv.slice(2);
const fail = (error) => {
  console.log('error', error.message);
  process.exit(1);
};
const collect = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
};

class HttpConnection {
  constructor(host, port, how) {
    Object.assign(this, {host, port, how, agent: new http.Agent({keepAlive: true, maxSockets: 1})});
  }
  close() {
    this.agent.destroy();
  }
  ask(size, payload) {
    return new Promise((done, failed) => {
      const post = this.how === 'post';
      const headers = post ? {'Content-Length': payload.length} : {};
      const request = http.request({
        host: this.host, port: this.port, agent: this.agent, path: '/' + size,
        method: post ? 'POST' : 'GET', headers}, (reply) => collect(reply).then(done, failed));
      request.on('error', failed);
      request.end(post ? payload : undefined);
    });
  }
}

class RedisConnection {
  constructor(host, port) {
    this.socket = net.connect(port, host).on('error', fail);
  }
  close() {
    this.socket.destroy();
  }
  ask(size, payload) {
    return new Promise((done) => {
      let got = Buffer.alloc(0);
      const more = (part) => {
        got = Buffer.concat([got, part]);
        const end = got.indexOf('\r\n');
        if (end < 0) return;
        const length = Number(got.subarray(1, end)); // "$n\r\n" and n bytes and "\r\n"
        if (got.length < end + 2 + length + 2) return;
        this.socket.off('data', more);
        done(got.subarray(end + 2, end + 2 + length));
      };
      this.socket.on('data', more);
      this.socket.write(`*2\r\n$4\r\nECHO\r\n$${payload.length}\r\n`);
      this.socket.write(payload);
      this.socket.write('\r\n');
    });
  }
}

async function client(host, port, how, dir) {
  const connect = () =>
      how === 'redis' ? new RedisConnection(host, port) : new HttpConnection(host, port, how);
  let connection = null;
  for await (const line of readline.createInterface({input: process.stdin})) {
    if (line === 'new') {
      if (connection) connection.close();
      connection = connect();
      console.log('new');
    } else {
      const size = line.split(' ')[1];
      const body = await connection.ask(size, fs.readFileSync(`${dir}/${size}`));
      console.log(body.length, crypto.createHash('sha256').update(body).digest('hex'));
    }
  }
  process.exit(0);
}

function server(port) {
  http.createServer((request, reply) => {
        collect(request).then((body) => {
          reply.writeHead(200, {'Content-Length': body.length});
          reply.end(body);
        }, () => reply.destroy());
      })
      .listen(Number(port));
}

if (role === 'client') {
  client(...rest).catch(fail);
} else {
  server(...rest);
}
