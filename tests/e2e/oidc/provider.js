// An OpenID provider that gives tokens to whoever asks, for popd's end-to-end tests.
//
// Its only argument is a JSON object: issuer, port, certificate, key (files), keys (a name, of which
// the names of the signing keys are made).  It ends when its standard input does.
//
// A client "mail-app" gets a token for a user by POSTing grant_type=urn:popd:test, user, claims (a
// JSON object), audience, scope, seconds, and alg (for a signed token; an opaque one without) to
// the token endpoint.  The client "popd" may introspect.

import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { Provider } from "oidc-provider";

const options = JSON.parse(process.argv[2]);

function signingKey(alg, kind, details) {
  const { privateKey } = generateKeyPairSync(kind, details);
  const kid = `${options.keys}-${alg}`;
  return { ...privateKey.export({ format: "jwk" }), alg, kid, use: "sig" };
}

const keys = [
  signingKey("RS256", "rsa", { modulusLength: 2048 }),
  signingKey("PS256", "rsa", { modulusLength: 2048 }),
  signingKey("ES256", "ec", { namedCurve: "P-256" }),
  signingKey("EdDSA", "ed25519", {}),
];

const provider = new Provider(options.issuer, {
  clients: [
    {
      client_id: "mail-app",
      client_secret: "secret-of-mail-app",
      grant_types: ["urn:popd:test"],
      response_types: [],
      redirect_uris: [],
    },
    {
      client_id: "popd",
      client_secret: "secret: of popd & co.",
      grant_types: [],
      response_types: [],
      redirect_uris: [],
    },
  ],
  jwks: { keys },
  enabledJWA: {
    idTokenSigningAlgValues: ["RS256", "PS256", "ES256", "EdDSA"],
  },
  extraTokenClaims: (ctx) => JSON.parse(ctx.oidc.params.claims || "{}"),
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  features: {
    devInteractions: { enabled: false },
    introspection: {
      enabled: true,
      allowedPolicy: (ctx, client) => client.clientId === "popd",
    },
    resourceIndicators: { enabled: true, getResourceServerInfo: () => ({ scope: "" }) },
    revocation: { enabled: true },
  },
});

async function grant(ctx) {
  const { user, audience, scope, seconds, alg } = ctx.oidc.params;
  const token = new provider.AccessToken({
    accountId: user,
    client: ctx.oidc.client,
    expiresIn: Number(seconds || 600),
    scope,
  });
  token.resourceServer = new provider.ResourceServer(audience, {
    scope,
    accessTokenFormat: alg ? "jwt" : "opaque",
    jwt: alg ? { sign: { alg } } : undefined,
  });
  ctx.body = { access_token: await token.save(), token_type: "Bearer" };
}

const parameters = ["user", "claims", "audience", "scope", "seconds", "alg"];
provider.registerGrantType("urn:popd:test", grant, parameters);

const tls = { cert: readFileSync(options.certificate), key: readFileSync(options.key) };
createServer(tls, provider.callback()).listen(options.port, "127.0.0.1", () => {
  console.log("ready");
});
process.stdin.resume();
process.stdin.on("end", () => process.exit());
