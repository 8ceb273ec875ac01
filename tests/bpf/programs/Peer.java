// SPDX-License-Identifier: Apache-2.0
// Java's side of tests/bpf/programs_test.cc (README.md has what each role does): client and server
// with java.net's sockets and threads, which block, or with java.nio's channels and a selector.

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

final class Peer {
  private static final Pattern LENGTH = Pattern.compile("(?i)content-length: *(\\d+)");

  private static byte[] joined(String head, byte[] body) throws IOException {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    all.write(head.getBytes(StandardCharsets.ISO_8859_1));
    all.write(body);
    return all.toByteArray();
  }

  private static byte[] reply(byte[] body) throws IOException {
    return joined("HTTP/1.1 200 OK\r\nContent-Length: " + body.length + "\r\n\r\n", body);
  }

  /** Takes the bytes of one message as they come. */
  private static final class Message {
    private final ByteArrayOutputStream got = new ByteArrayOutputStream();
    private int bodyAt = -1;
    private int end = -1;

    /** The body, once all of it is there; then the next message begins. */
    byte[] add(byte[] bytes, int count) {
      got.write(bytes, 0, count);
      if (end < 0) {
        String text = got.toString(StandardCharsets.ISO_8859_1);
        int headEnd = text.indexOf("\r\n\r\n");
        if (headEnd < 0) {
          return null;
        }
        Matcher length = LENGTH.matcher(text.substring(0, headEnd));
        bodyAt = headEnd + 4;
        end = bodyAt + (length.find() ? Integer.parseInt(length.group(1)) : 0);
      }
      if (got.size() < end) {
        return null;
      }
      byte[] body = java.util.Arrays.copyOfRange(got.toByteArray(), bodyAt, end);
      got.reset();
      end = -1;
      return body;
    }
  }

  private interface Connection {
    byte[] ask(byte[] request) throws IOException;

    void close() throws IOException;
  }

  private static final class BlockingConnection implements Connection {
    private final Socket socket;

    BlockingConnection(InetSocketAddress to) throws IOException {
      socket = new Socket(to.getAddress(), to.getPort());
    }

    @Override
    public byte[] ask(byte[] request) throws IOException {
      socket.getOutputStream().write(request);
      return receive(socket);
    }

    @Override
    public void close() throws IOException {
      socket.close();
    }
  }

  /** One message of a blocking socket; null at the end of the connection. */
  private static byte[] receive(Socket socket) throws IOException {
    Message message = new Message();
    byte[] part = new byte[65536];
    for (int n = socket.getInputStream().read(part); n >= 0; ) {
      byte[] body = message.add(part, n);
      if (body != null) {
        return body;
      }
      n = socket.getInputStream().read(part);
    }
    return null;
  }

  private static final class NioConnection implements Connection {
    private final Selector selector = Selector.open();
    private final SocketChannel channel = SocketChannel.open();
    private final SelectionKey key;

    NioConnection(InetSocketAddress to) throws IOException {
      channel.configureBlocking(false);
      key = channel.register(selector, SelectionKey.OP_CONNECT);
      if (!channel.connect(to)) {
        do {
          selector.select();
        } while (!channel.finishConnect());
      }
    }

    @Override
    public byte[] ask(byte[] request) throws IOException {
      ByteBuffer out = ByteBuffer.wrap(request);
      ByteBuffer in = ByteBuffer.allocate(65536);
      Message message = new Message();
      while (true) {
        channel.write(out);
        key.interestOps(SelectionKey.OP_READ | (out.hasRemaining() ? SelectionKey.OP_WRITE : 0));
        selector.select();
        int n = channel.read(in.clear());
        if (n < 0) {
          throw new IOException("the connection ended");
        }
        byte[] body = message.add(in.array(), n);
        if (body != null) {
          return body;
        }
      }
    }

    @Override
    public void close() throws IOException {
      channel.close();
      selector.close();
    }
  }

  private static byte[] request(String how, String size, String dir) throws IOException {
    if (how.equals("get")) {
      return joined("GET /" + size + " HTTP/1.1\r\nHost: x\r\n\r\n", new byte[0]);
    }
    byte[] payload = Files.readAllBytes(Path.of(dir, size));
    return joined("POST /" + size + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + size + "\r\n\r\n", payload);
  }

  private static void client(boolean nio, String[] a) throws Exception {
    InetSocketAddress to = new InetSocketAddress(a[1], Integer.parseInt(a[2]));
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
    Connection connection = null;
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      if (line.equals("new")) {
        if (connection != null) {
          connection.close();
        }
        connection = nio ? new NioConnection(to) : new BlockingConnection(to);
        System.out.println("new");
        continue;
      }
      byte[] body = connection.ask(request(a[3], line.split(" ")[1], a[4]));
      byte[] hash = MessageDigest.getInstance("SHA-256").digest(body);
      System.out.println(body.length + " " + HexFormat.of().formatHex(hash));
    }
  }

  private static void serve(Socket socket) {
    try (socket) {
      for (byte[] body = receive(socket); body != null; body = receive(socket)) {
        socket.getOutputStream().write(reply(body));
      }
    } catch (IOException gone) {
      System.err.println(gone);
    }
  }

  private static void blockingServer(int port) throws IOException {
    try (ServerSocket listener = new ServerSocket(port)) {
      while (true) {
        Socket socket = listener.accept();
        new Thread(() -> serve(socket)).start();
      }
    }
  }

  private static final class Served {
    final Message message = new Message();
    ByteBuffer out = ByteBuffer.allocate(0);
  }

  private static void nioServer(int port) throws IOException {
    Selector selector = Selector.open();
    ServerSocketChannel listener = ServerSocketChannel.open().bind(new InetSocketAddress(port));
    listener.configureBlocking(false);
    listener.register(selector, SelectionKey.OP_ACCEPT);
    while (true) {
      selector.select();
      for (SelectionKey key : selector.selectedKeys()) {
        if (key.isAcceptable()) {
          SocketChannel channel = listener.accept();
          if (channel != null) {
            channel.configureBlocking(false);
            channel.register(selector, SelectionKey.OP_READ, new Served());
          }
        } else {
          move((SocketChannel) key.channel(), key);
        }
      }
      selector.selectedKeys().clear();
    }
  }

  /** What can be read and written now. The client asks again only when it has its answer. */
  private static void move(SocketChannel channel, SelectionKey key) throws IOException {
    Served served = (Served) key.attachment();
    if (key.isReadable()) {
      ByteBuffer in = ByteBuffer.allocate(65536);
      int n = channel.read(in);
      if (n < 0) {
        channel.close();
        return;
      }
      byte[] body = served.message.add(in.array(), n);
      if (body != null) {
        served.out = ByteBuffer.wrap(reply(body));
      }
    }
    channel.write(served.out);
    key.interestOps(served.out.hasRemaining() ? SelectionKey.OP_WRITE : SelectionKey.OP_READ);
  }

  public static void main(String[] a) throws Exception {
    switch (a[0]) {
      case "client" -> client(false, a);
      case "nio-client" -> client(true, a);
      case "server" -> blockingServer(Integer.parseInt(a[1]));
      default -> nioServer(Integer.parseInt(a[1]));
    }
  }
}
