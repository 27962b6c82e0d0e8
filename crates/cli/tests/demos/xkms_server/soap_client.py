"""A stock SOAP client: loads the WSDL and calls every operation.

Usage: soap_client.py WSDL SERVICE NAME ENDED CODE-FILE
Asks about the key NAME; ends the key ENDED by its revocation code.
Prints one line an operation: its name, the major and the minor result.
"""

import sys

import lxml.etree
import zeep

wsdl, service, name, ended, code = sys.argv[1:6]
client = zeep.Client(wsdl)
DS = "http://www.w3.org/2000/09/xmldsig#"
XKMS = "http://www.w3.org/2002/03/xkms#"
count = 0


def head(**more):
    global count
    count += 1
    return {"Id": f"zeep{count}", "Service": service, **more}


def named(key=name):
    element = lxml.etree.Element(f"{{{DS}}}KeyName")
    element.text = key
    return {"_value_1": [element]}


def signature():
    return {"_value_1": [lxml.etree.Element(f"{{{DS}}}SignedInfo")]}


def about(key=name):
    status = {"StatusValue": XKMS + "Indeterminate"}
    return {"Id": "B1", "KeyInfo": named(key), "Status": status}


def tell(operation, answer):
    minor = (answer.ResultMinor or "").removeprefix(XKMS)
    print(operation, answer.ResultMajor.removeprefix(XKMS), minor, flush=True)
    return answer


def call(operation, **body):
    return tell(operation, getattr(client.service, operation)(**head(**body)))


authentication = {"KeyBindingAuthentication": {"Signature": signature()}}
call("Locate", QueryKeyBinding={"KeyInfo": named()})
found = call("Validate", QueryKeyBinding={"KeyInfo": named()})
assert found.KeyBinding[0].Status.StatusValue == XKMS + "Valid", found
call("Register", PrototypeKeyBinding={"Id": "B1", "KeyInfo": named()}, Authentication=authentication)
call("Reissue", ReissueKeyBinding=about(), Authentication=authentication)
call("Revoke", RevokeKeyBinding=about(), RevocationCode=b"no such code")
call("Recover", RecoverKeyBinding=about(), Authentication=authentication)
parts = [{"LocateRequest": head(QueryKeyBinding={"KeyInfo": named()})}]
call("Compound", _value_1=parts)
call("Pending", ResponseId="nothing", OriginalRequestId="never")
call("Status", ResponseId="nothing", OriginalRequestId="never")
with open(code, "rb") as file:
    call("Revoke", RevokeKeyBinding=about(ended), RevocationCode=file.read())
