// The same relay as one writes it with Socket.IO: each user has a room, and a message is emitted to two of them.

import { createServer } from "node:http";
import { Server } from "socket.io";
import { isGood } from "./tokens.mjs";

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false, maxHttpBufferSize: 65536 });

io.use((socket, next) => {
  const { query, headers } = socket.handshake;
  next(isGood(headers.authorization, query.client_id) ? undefined : new Error("unauthorized"));
});

io.on("connection", (socket) => {
  socket.join(socket.handshake.query.client_id);
  socket.on("chat", (message) => {
    if (message.receive_id[0] === "G") io.emit("chat", message);
    else io.to([message.receive_id, message.send_id]).emit("chat", message);
  });
});

http.listen({ host: "127.0.0.1", port: 0, backlog: 2048 }, () => {
  console.log(`listens on http://127.0.0.1:${http.address().port}`);
});
