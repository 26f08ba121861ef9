// The bare relay: `ws` and nothing else. It reads to whom a frame goes, and passes the same bytes on, twice.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { isGood } from "./tokens.mjs";

const connections = new Map();
const asText = { binary: false };

function relay(data) {
  const { send_id, receive_id } = JSON.parse(data);
  if (receive_id[0] === "G") {
    for (const connection of connections.values()) connection.send(data, asText);
    return;
  }
  connections.get(receive_id)?.send(data, asText);
  connections.get(send_id)?.send(data, asText);
}

const http = createServer((_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 65536 });

http.on("upgrade", (request, socket, head) => {
  const userId = new URL(request.url, "http://relay").searchParams.get("client_id");
  if (!isGood(request.headers.authorization, userId)) {
    socket.end("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    return;
  }
  sockets.handleUpgrade(request, socket, head, (connection) => {
    connections.set(userId, connection);
    connection.on("message", relay);
    connection.on("close", () => connections.delete(userId));
  });
});

http.listen({ host: "127.0.0.1", port: 0, backlog: 2048 }, () => {
  console.log(`listens on http://127.0.0.1:${http.address().port}`);
});
