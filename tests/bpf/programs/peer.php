<?php
// SPDX-License-Identifier: Apache-2.0
// PHP's side of tests/bpf/programs_test.cc (README.md has what each role does): client and server
// with streams, which block. The server serves one connection after another.

function fail(string $why): never
{
    echo "error $why\n";
    exit(1);
}

// The body of one message; null at the end of the connection.
function receive($connection): ?string
{
    $length = 0;
    while (($line = fgets($connection)) !== "\r\n") {
        if ($line === false) {
            return null;
        }
        if (preg_match('/^content-length: *(\d+)/i', $line, $found)) {
            $length = (int) $found[1];
        }
    }
    return $length ? stream_get_contents($connection, $length) : '';
}

function send($connection, string $bytes): void
{
    for ($sent = 0; $sent < strlen($bytes); $sent += $n) {
        $n = fwrite($connection, substr($bytes, $sent));
        $n or fail('cannot send');
    }
}

function client(string $host, string $port, string $how, string $dir): void
{
    $connection = null;
    while (($line = fgets(STDIN)) !== false) {
        if ($line === "new\n") {
            $connection and fclose($connection);
            $connection = stream_socket_client("tcp://$host:$port") or fail('cannot connect');
            echo "new\n";
            continue;
        }
        $size = explode(' ', rtrim($line))[1];
        $payload = file_get_contents("$dir/$size");
        send($connection, $how === 'get'
            ? "GET /$size HTTP/1.1\r\nHost: x\r\n\r\n"
            : "POST /$size HTTP/1.1\r\nHost: x\r\nContent-Length: $size\r\n\r\n$payload");
        $body = receive($connection) ?? fail('the connection ended');
        echo strlen($body), ' ', hash('sha256', $body), "\n";
    }
}

function server(string $port): void
{
    $listener = stream_socket_server("tcp://0.0.0.0:$port") or fail('cannot listen');
    while ($connection = stream_socket_accept($listener, -1)) {
        while (($body = receive($connection)) !== null) {
            send($connection, "HTTP/1.1 200 OK\r\nContent-Length: " . strlen($body) . "\r\n\r\n$body");
        }
        fclose($connection);
    }
}

array_shift($argv);
array_shift($argv) === 'client' ? client(...$argv) : server(...$argv);
