// Reads {secret, headers, body} from standard input and prints the payload's type
// if the specification's own library takes the signature.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, headers, body } = JSON.parse(readFileSync(0, "utf8"));
console.log(new Webhook(secret).verify(body, headers).type);
