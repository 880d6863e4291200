// A certified OpenID provider for tests: anybody signs in with any name, no password, and is that name at example.com.
// Clients register themselves (POST /reg). Argument: the port.
import Provider from "oidc-provider";

const port = Number(process.argv[2]);
const groups = (name) => (name.startsWith("boss") ? ["staff", "bosses"] : ["staff"]);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
  scopes: ["openid", "email", "profile", "groups"],
  clientDefaults: { id_token_signed_response_alg: "RS256" },
  // Claims in the ID token itself, as most providers that companies run have them.
  conformIdTokenClaims: false,
  cookies: { keys: ["only for tests"] },
  features: { registration: { enabled: true } },
  findAccount: (_context, name) => ({
    accountId: name,
    claims: () => ({
      sub: name,
      email: `${name}@example.com`,
      email_verified: !name.startsWith("unverified"),
      groups: groups(name),
    }),
  }),
});
provider.listen(port, "127.0.0.1", () => console.log(`issuer at http://127.0.0.1:${port}`));
