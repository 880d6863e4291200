// A SAML 2.0 provider for tests: anybody signs in with any name, no password, and is that name at example.com.
// Arguments: the port, and the files of its key and its certificate, in PEM. POST /sp takes a service provider's metadata.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

import samlify from "samlify";

const [port, keyFile, certificateFile] = process.argv.slice(2);
const url = `http://127.0.0.1:${port}`;
const persistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
const services = new Map();

// What comes in here is made by the tests' own suite.
samlify.setSchemaValidator({ validate: async () => "not looked at" });

const attribute = (name) =>
  `<saml:Attribute Name="${name}"><saml:AttributeValue xmlns:xs="http://www.w3.org/2001/XMLSchema"` +
  ` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string">{${name}}</saml:AttributeValue></saml:Attribute>`;
const statements =
  '<saml:AuthnStatement AuthnInstant="{IssueInstant}"><saml:AuthnContext><saml:AuthnContextClassRef>' +
  "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>" +
  `<saml:AttributeStatement>${["email", "groups"].map(attribute).join("")}</saml:AttributeStatement>`;
const context = samlify.SamlLib.defaultLoginResponseTemplate.context.replace(
  "{AuthnStatement}{AttributeStatement}",
  statements,
);

const provider = samlify.IdentityProvider({
  entityID: `${url}/metadata`,
  privateKey: readFileSync(keyFile),
  signingCert: readFileSync(certificateFile, "utf-8"),
  requestSignatureAlgorithm: "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
  nameIDFormat: [persistent],
  singleSignOnService: [
    { Binding: "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect", Location: `${url}/sso` },
    { Binding: "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST", Location: `${url}/sso` },
  ],
  loginResponseTemplate: { context, attributes: [] },
});

function answerOf(request, service, name) {
  const now = new Date();
  const until = new Date(now.getTime() + 300_000).toISOString();
  const acs = service.entityMeta.getAssertionConsumerService("post");
  return {
    ID: provider.entitySetting.generateID(),
    AssertionID: provider.entitySetting.generateID(),
    Destination: acs,
    Audience: service.entityMeta.getEntityID(),
    SubjectRecipient: acs,
    Issuer: provider.entityMeta.getEntityID(),
    IssueInstant: now.toISOString(),
    StatusCode: "urn:oasis:names:tc:SAML:2.0:status:Success",
    ConditionsNotBefore: now.toISOString(),
    ConditionsNotOnOrAfter: until,
    SubjectConfirmationDataNotOnOrAfter: until,
    NameIDFormat: persistent,
    NameID: `id of ${name}`,
    InResponseTo: request.extract.request.id,
    email: `${name}@example.com`,
    groups: name.startsWith("boss") ? "bosses" : "staff",
  };
}

async function signedIn(query) {
  if (!query.login) return "<p>Who are you?</p>";
  const [any] = services.values();
  const { extract } = await provider.parseLoginRequest(any, "redirect", { query });
  const service = services.get(extract.issuer);
  const replaced = (template) => ({
    id: extract.request.id,
    context: samlify.SamlLib.replaceTagsByValue(template, answerOf({ extract }, service, query.login)),
  });
  const made = await provider.createLoginResponse(service, { extract }, "post", {}, { customTagReplacement: replaced });
  return (
    `<form method="post" action="${made.entityEndpoint}">` +
    `<input type="hidden" name="SAMLResponse" value="${made.context}"/>` +
    `<input type="hidden" name="RelayState" value="${query.RelayState}"/></form><script>document.forms[0].submit()</script>`
  );
}

async function register(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const service = samlify.ServiceProvider({ metadata: Buffer.concat(parts).toString() });
  services.set(service.entityMeta.getEntityID(), service);
}

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, url);
  if (pathname === "/metadata") {
    response.end(provider.getMetadata());
  } else if (pathname === "/sp") {
    await register(request);
    response.end();
  } else {
    response.setHeader("Content-Type", "text/html");
    response.end(await signedIn(Object.fromEntries(searchParams)));
  }
}).listen(Number(port), "127.0.0.1", () => console.log(`SAML provider at ${url}`));
