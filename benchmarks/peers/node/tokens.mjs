// The check of a login, with what Node.js brings along: HS256 and `exp`, and that the token is the user's.

import { createHmac, timingSafeEqual } from "node:crypto";

const secret = process.env.PEER_SECRET;

/** Whether `authorization` ("Bearer …") carries a good token of this user. */
export function isGood(authorization, userId) {
  const [head, body, signature] = (authorization ?? "").replace(/^Bearer /, "").split(".");
  if (!signature) return false;
  try {
    const expected = createHmac("sha256", secret).update(`${head}.${body}`).digest();
    const given = Buffer.from(signature, "base64url");
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return false;
    const claims = JSON.parse(Buffer.from(body, "base64url"));
    return claims.user_id === userId && claims.exp > Date.now() / 1000;
  } catch {
    return false;
  }
}
