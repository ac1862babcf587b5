/**
 * Certificates for test servers that speak TLS: an authority and a certificate of it for 127.0.0.1 and localhost. They are made anew
 * for each server, because a private key does not belong into a repository. The encoding is DER (X.690), the structure X.509 (RFC 5280).
 */
import { createSign, generateKeyPairSync, randomBytes } from "node:crypto";

const DAY_MS = 86_400_000;

/** One DER element: tag, length, content. */
function der(tag, ...contents) {
  const content = Buffer.concat(contents);
  const length = content.length;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const sequence = (...parts) => der(0x30, ...parts);
const oid = (hex) => der(0x06, Buffer.from(hex, "hex"));
const time = (ms) => der(0x17, Buffer.from(`${new Date(ms).toISOString().slice(2, 19).replace(/[-:T]/g, "")}Z`));
const nameOf = (text) => sequence(der(0x31, sequence(oid("550403"), der(0x0c, Buffer.from(text)))));
const pem = (bytes) =>
  `-----BEGIN CERTIFICATE-----\n${bytes.toString("base64").replace(/.{64}/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
/** ecdsa-with-SHA256 */
const SIGNATURE = sequence(oid("2a8648ce3d040302"));
/** basicConstraints, critical: an authority. */
const AUTHORITY = sequence(
  oid("551d13"),
  der(0x01, Buffer.from([255])),
  der(0x04, sequence(der(0x01, Buffer.from([255])))),
);
/** subjectAltName: localhost and 127.0.0.1. */
const NAMES = sequence(
  oid("551d11"),
  der(0x04, sequence(der(0x82, Buffer.from("localhost")), der(0x87, Buffer.from([127, 0, 0, 1])))),
);

/** The certificate of a public key, signed by the issuer. */
function issue(subject, publicKey, issuer, signer, extension) {
  const now = Date.now();
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([0x40]), randomBytes(8)),
    SIGNATURE,
    nameOf(issuer),
    sequence(time(now - DAY_MS), time(now + 30 * DAY_MS)),
    nameOf(subject),
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(extension)),
  );
  const signature = createSign("sha256").update(body).sign(signer);
  return pem(sequence(body, SIGNATURE, der(0x03, Buffer.from([0]), signature)));
}

/** @returns PEM texts: the certificate of the authority, and certificate and private key of the server */
export function makeCertificate() {
  const authority = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const server = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return {
    ca: issue("test authority", authority.publicKey, "test authority", authority.privateKey, AUTHORITY),
    cert: issue("localhost", server.publicKey, "test authority", authority.privateKey, NAMES),
    key: server.privateKey.export({ type: "pkcs8", format: "pem" }),
  };
}
