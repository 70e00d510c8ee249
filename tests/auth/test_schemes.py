"""Tests of stored passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
from unittest import skipUnless

import argon2
import bcrypt
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from popd.auth import crypt3, scramkeys
from popd.auth.schemes import MAX_PASSWORD_OCTETS, StoredPassword, parse, scheme_of

PASSWORD = b"correct horse"

# doveadm pw -s SCHEME -p 'correct horse' (Dovecot 2.3.19)
DOVEADM = r"""
{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$LxsY53xkm9rWU12fmKxZwg$qoSWG7alrx3ZIbWIFQTbw73aRGXI2/8/EHV/ZgZBlK8
{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$qCzsu6xbfVRLZdY2jgndeA$Jo1rGybHCuGDVFX9G14T2hIa1/0fs8/1x526XjrB49I
{BLF-CRYPT}$2y$05$pQxU5OkTB87F6wkwnDE7YuwNi06QYMAwPggAPCgu16ZOWrS0cEpNa
{BLF-CRYPT.HEX}243279243035243843594244456547746762797a79384e5377793278753737635230376b4743536c37536878695874376f694f4e6847736158717757
{CRYPT}$2y$05$VSD5ILSIV/NFhMXMnMu7k.4EnAZKGnhdfB8HOTUFq2hRKytXRRlIm
{SHA512-CRYPT}$6$EBoD3lZseTc2m6.m$f8MNE9UA8uM4yTiBm0A0AqK4GUU6YjIYEP0SXDdmarMkQeBVND3KzCOoa5sh7.HDH.nMbmNoBr3kk1ZlkLI6c0
{SHA512-CRYPT.B64}JDYkNzZQRXJmVDY2LnZxdDRENyQudy5tbDNINS5VMWExa25ybS5PT2ROZUlleUNqdWdRTzBPcXNnNmhxS2NwMEE1YXB5c3M1eXd5M0hzUVBFR1cvWVF5WW5WWG04aTVNdTdSY1FZVnBCMA==
{SHA256-CRYPT}$5$RZOS9wp5VcHBPxPV$fdxNtQRWFHlnrWIqPOZInPAt7EJXwfAU83oKiWtTaB5
{SSHA512}vtp2s+FbOkCkPoeO9Ry52tB89B+hZrkD1CEIi+cj+u+tGrHWme3BUfI4HBxMooOLn/h14w1w0eOuhBBe/CmIanrA3VA=
{SSHA512.HEX}46dc64b7d443b691efc100e6c77efbefd92caf93886513bcfcdfa502219eb7d47d15fffdd16e34754ed47c2306d1da327730c20d667663a7dfad965bca5e20461646fad0
{SSHA}jYOvdVbsQapbOhcPclmtjbzIJ433JMyK
{SSHA.HEX}aaed1c615cff77534ae38b2de33c8785a2914ed2c34d7d89
{SSHA.B64}kUP0MjSvRDjlRdR3bCpP8fOMd/UlYBWE
{SCRAM-SHA-256}4096,+NriBrh5HXcJzuVSHuUSow==,C3K3l8xceFpQZgR2zK2weTeVYHDIekGaxj2lYh2qfjw=,TWUtUeXZJdVLDIjAAl98DKTAss5YOIXqZDdWApV/wS0=
{SCRAM-SHA-256}4096,3Sp8GWuLCNle45mxfsdkpg==,clNt0BzkJZlGTiX2YQMxvviI4CEiSMLNRzQw2r+qcVE=,QVHvde+cct/bST8DZCjhuPO6uhQypGyLOtxdXoKzmVs=
{SCRAM-SHA-256.B64}NDA5Nixoajd1V3hXZ05FeE9MWTdXUE50eVlBPT0sc3FSTUhWSS82cFhERnoyeWJzc093MjZkQVpuSlR2aERLZ3RJTVBJU1NyST0sdHVXb2toeXhxZ0ZlalJ2ODJEd0gyYzdyS3hFTyt4T0JTYjIra25oWkFQYz0=
{SCRAM-SHA-1}4096,ovXUV0xn+tovylcWGG0WgQ==,bMkCVe/qXyY5ry85pqRxO3vI+dM=,iYnvsLXiMBRMc/ZH2xIvArgQpOk=
{PLAIN.B64}Y29ycmVjdCBob3JzZQ==
{PLAIN.HEX}636f727265637420686f727365
{PLAIN}correct horse
{CLEARTEXT}correct horse
{CLEAR}correct horse
""".strip().splitlines()

# openssl passwd -6 and -5, mkpasswd -m bcrypt-a and -m bcrypt
CRYPTS = """
$6$qOsKPCQ7jTllw2CA$GUVTxxAIJyT3EaUINVAMgQ2fh4Ynn6bk3dCAtmo6mnNYNV4kUXKt3ZCAJ9VTALBobVJATTh6wYdqchwFkczV41
$5$b/O/CTreTEqsxC.W$w.asjNQOwRH1BaDn6lvLGAsrfXcb0wOMe0ZEVDiMLW8
$2a$05$BpAU.ovzovfPzoqW0LYQZ.zH/M9jVCNmTvMzarXmNB.rqLFq6JGUa
$2b$05$R5hd6VNjoc6CDtRboiORl.p23uBWlutn9agBlw1Kp.aY6CfTBeuOm
""".strip().splitlines()

# mkpasswd -m yescrypt, -R 1 and its default
YESCRYPTS = """
$y$j75$wBGcjXevSLA8Rz.OhaIPA0$8bH4onqE9V6g1tA8yHRGopQcth088b0ssDuYUst482B
$y$j9T$lvyw7ba0VJT.MuBjoX.vo0$5BmGzIJl7yJt4JDOhKJZctS/JzyAD7GZdUkOcdozw6C
""".strip().splitlines()

IMPOSSIBLE = (b"", b"\0", PASSWORD + b"\0", PASSWORD + b"\0x", b"x" * 1025, PASSWORD * 100)


class KnownAnswers(SynchronousTestCase):
    """What other programs stored is verified."""

    def assertStores(self, field: str, password: bytes) -> None:
        """Assert that *field* accepts *password* and nothing near it."""
        stored = parse(field)
        self.assertTrue(stored.verify(password), stored)
        for wrong in (password + b" ", password[:-1], password.swapcase(), b"x", *IMPOSSIBLE):
            self.assertFalse(stored.verify(wrong), (stored, wrong))

    def test_doveadm(self) -> None:
        """The right password, and no other, opens what doveadm made, in every scheme."""
        for field in DOVEADM:
            self.assertStores(field, PASSWORD)

    def test_without_scheme(self) -> None:
        """Data that begins with $ is CRYPT."""
        for field in CRYPTS:
            self.assertStores(field, PASSWORD)
            self.assertEqual(parse(field).scheme, "CRYPT")

    @skipUnless(crypt3.knows(b"$y$"), "this system's crypt(3) does not know yescrypt")
    def test_yescrypt(self) -> None:
        """Yescrypt goes by its own name, by CRYPT and by none."""
        for data in YESCRYPTS:
            for field in (data, "{CRYPT}" + data, "{YESCRYPT}" + data):
                self.assertStores(field, PASSWORD)

    def test_any_case(self) -> None:
        """Neither a scheme nor an encoding minds its case."""
        self.assertStores("{Ssha.hEx}aaed1c615cff77534ae38b2de33c8785a2914ed2c34d7d89", PASSWORD)
        self.assertStores("{plain.Base64}Y29ycmVjdCBob3JzZQ==", PASSWORD)

    def test_specifications(self) -> None:
        """The crypts answer as in their authors' specifications."""
        self.assertStores(
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", b"Hello world!"
        )
        self.assertStores(
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vO"
            "uZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
            b"Hello world!",
        )
        self.assertStores("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", b"U*U")

    def test_libraries(self) -> None:
        """What the libraries make is verified, 8-bit passwords among it."""
        password = "pässwörd".encode()
        self.assertStores("{ARGON2ID}" + argon2.PasswordHasher(1, 8, 1).hash(password), password)
        self.assertStores(bcrypt.hashpw(password, bcrypt.gensalt(4)).decode(), password)
        digest = hashlib.sha512(password).digest()
        self.assertStores("{SSHA512}" + base64.b64encode(digest).decode(), password)


class Secrets(SynchronousTestCase):
    """What is stored besides a hash can be had, for mechanisms that need it."""

    def test_scram_keys(self) -> None:
        """SCRAM keys are what doveadm wrote, and are made of a password as it makes them."""
        for field in DOVEADM:
            stored = parse(field)
            keys = stored.scram_keys
            self.assertEqual(keys is not None, "SCRAM" in field)
            if keys is not None:
                made = scramkeys.derive(stored.scheme, PASSWORD, keys.salt, keys.iterations)
                self.assertEqual(made, keys)
                self.assertEqual(
                    scramkeys.derive(stored.scheme, b"x", keys.salt, 4096) == keys, False
                )

    def test_rfc_7677(self) -> None:
        """The keys are those of the example in RFC 7677 section 3."""
        salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        keys = scramkeys.derive("SCRAM-SHA-256", b"pencil", salt, 4096)
        nonces = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        message = (
            b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=%b,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=%b"
            % (nonces, nonces)
        )
        signature = hmac.digest(keys.server_key, message, "sha256")
        expected = b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        self.assertEqual(base64.b64encode(signature), expected)

    def test_written(self) -> None:
        """What is written can be parsed, has a salt of its own, and fits the password."""
        one, two = (scramkeys.written("SCRAM-SHA-256", PASSWORD, 5000) for _ in range(2))
        self.assertNotEqual(one, two)
        for field in (one, two):
            keys = parse(field).scram_keys
            self.assertEqual(keys and (keys.iterations, len(keys.salt)), (5000, 16))
            self.assertTrue(parse(field).verify(PASSWORD))

    def test_prepared(self) -> None:
        """SCRAM's passwords are prepared, so that two spellings of é are the same."""
        stored = parse(scramkeys.written("SCRAM-SHA-1", "é".encode()))
        self.assertTrue(stored.verify("e\N{COMBINING ACUTE ACCENT}".encode()))
        self.assertFalse(stored.verify(b"e"))
        unpreparable = parse(scramkeys.written("SCRAM-SHA-1", b"\xff"))
        self.assertTrue(unpreparable.verify(b"\xff"))

    def test_plain(self) -> None:
        """A plain password can be had, whatever its scheme is called."""
        for field in DOVEADM:
            plain = PASSWORD if field.startswith(("{PLAIN", "{CLEAR")) else None
            self.assertEqual(parse(field).plain, plain)

    def test_scheme_of(self) -> None:
        """The scheme can be had without parsing; plain passwords have one name."""
        for field in [*DOVEADM, *CRYPTS]:
            scheme = parse(field).scheme
            expected = "PLAIN" if scheme.startswith("CLEAR") else scheme
            self.assertEqual(scheme_of(field), expected)


class LongPasswords(SynchronousTestCase):
    """Each scheme takes passwords as long as it can tell apart."""

    def test_bcrypt(self) -> None:
        """Bcrypt looks at 72 octets, as crypt(3) has it."""
        stored = parse("$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui")
        digits = b"0123456789"
        letters = b"abcdefghijklmnopqrstuvwxyz"
        password = digits + letters + letters.upper() + digits
        self.assertTrue(stored.verify(password))
        self.assertTrue(stored.verify(password + b"chars after 72 are ignored"))
        self.assertFalse(stored.verify(password[:-1]))

    def test_limit(self) -> None:
        """1,024 octets are a password and one more are none."""
        longest = "x" * MAX_PASSWORD_OCTETS
        self.assertTrue(parse("{PLAIN}" + longest).verify(longest.encode()))
        self.assertFalse(parse("{PLAIN}" + longest + "x").verify(longest.encode() + b"x"))

    @skipUnless(crypt3.knows(b"$6$"), "this system's crypt(3) does not know SHA512-CRYPT")
    def test_crypt(self) -> None:
        """crypt(3) takes 511 octets, and more never match."""
        stored = parse(
            "$6$saltsaltsaltsalt$xAsq1VIjsG3SI6qR1CqQZMeeabzICWrpvrYR9M9yp6tIUh9wtN5x21oxi74emjdZgCjw.X"
            "tAS1U/SOXVwmVUY/"
        )
        self.assertTrue(stored.verify(b"x" * 511))
        self.assertFalse(stored.verify(b"x" * 512))

    def test_impossible_passwords_cost_the_same(self) -> None:
        """A password that cannot match is replaced by one that is hashed, and refused."""
        hashed: list[bytes] = []

        def check(password: bytes) -> bool:
            hashed.append(password)
            return True

        stored = StoredPassword("TEST", check)
        for password in IMPOSSIBLE:
            self.assertFalse(stored.verify(password))
        self.assertEqual(hashed, [b"impossible"] * len(IMPOSSIBLE))
        self.assertFalse(parse("{PLAIN}impossible").verify(b""))


class WithoutSystemCrypt(SynchronousTestCase):
    """Where crypt(3) is missing, libpass does what it can."""

    def setUp(self) -> None:
        """Take crypt(3) away."""
        self.patch(crypt3, "knows", lambda _method: False)

    def test_sha_crypt(self) -> None:
        """SHA512-CRYPT and SHA256-CRYPT work."""
        for field in CRYPTS[:2]:
            self.assertTrue(parse(field).verify(PASSWORD))
            for wrong in (b"x", *IMPOSSIBLE):
                self.assertFalse(parse(field).verify(wrong))

    def test_yescrypt(self) -> None:
        """Yescrypt is refused, and the reason given."""
        for field in YESCRYPTS:
            error = self.assertRaises(ValueError, parse, field)
            self.assertIn("does not know", str(error))


class Refusals(SynchronousTestCase):
    """What is not a stored password is refused when it is read."""

    def assertRefused(self, field: str, reason: str) -> None:
        """Assert that *field* is refused for *reason*, and that the text does not repeat it."""
        error = self.assertRaises(ValueError, parse, field)
        self.assertIn(reason, str(error))
        self.assertNotIn("SECRET", str(error))
        self.assertNotIn("\n", str(error))

    def test_no_scheme(self) -> None:
        """A bare word is no stored password."""
        for field in ("", "SECRET", "x", "*", "!", "{}SECRET", "{PLAIN", "PLAIN}x", " {PLAIN}x"):
            self.assertRefused(field, "no {SCHEME}")

    def test_unknown_scheme(self) -> None:
        """A scheme that popd does not have is refused, with a list of those that it has."""
        for scheme in ("MD5-CRYPT", "SHA512", "SMD5", "SECRET", "CRAM-MD5"):
            self.assertRefused(f"{{{scheme}}}SECRET", "none of ARGON2ID, ")
        for encoding in ("B32", "SECRET", ""):
            self.assertRefused(f"{{PLAIN.{encoding}}}SECRET", "no {SCHEME}")

    def test_encoding(self) -> None:
        """Data must be encoded as its scheme or suffix says."""
        for field in (
            "{SSHA}SECRET!",
            "{SSHA.b64}jYOvdVbsQapbOhcPclmtjbzIJ433JM",
            "{SSHA}jYOvdVbs QapbOhcPclmtjbzIJ433JMyK",
            "{PLAIN.hex}SECRET",
            "{PLAIN.hex}616",
            "{PLAIN.hex}61 62",
            "{PLAIN.base64}eA",
            "{PLAIN.base64}\xe4",
            "{PLAIN}\ud800",
        ):
            self.assertRefused(field, "is not encoded as it says")

    def test_plain(self) -> None:
        """Nobody has an empty password or one with NUL."""
        for field in ("{PLAIN}", "{PLAIN}a\0b", "{PLAIN.hex}", "{PLAIN.hex}00"):
            self.assertRefused(field, "is no password")

    def test_salted(self) -> None:
        """A salted digest has at least the digest and not much more."""
        for scheme, size in (("SSHA", 20), ("SSHA512", 64)):
            for octets in (0, 1, size - 1, 2 * size + 1):
                data = base64.b64encode(bytes(octets)).decode()
                self.assertRefused(f"{{{scheme}}}{data}", "too short or too long")

    def test_scram(self) -> None:
        """Damaged SCRAM keys are refused, and iterations that are too few or too many."""
        for mechanism, good in (
            ("SCRAM-SHA-256", next(line for line in DOVEADM if "SCRAM-SHA-256}" in line)),
            ("SCRAM-SHA-1", next(line for line in DOVEADM if "SCRAM-SHA-1}" in line)),
        ):
            count, salt, stored, server = good.partition("}")[2].split(",")
            for parts in (
                (count, salt, stored),
                (count, salt, stored, server, "SECRET"),
                (count, salt, stored[4:], server),
                (count, salt, stored, server[:-1]),
                (count, salt, stored, server[:-2] + "B="),
                (count, "", stored, server),
                (count, "SECRET", stored, server),
                (count, salt, stored, server + "\n"),
                ("04096", salt, stored, server),
                ("-4096", salt, stored, server),
                ("٤٠٩٦", salt, stored, server),
                ("", salt, stored, server),
            ):
                self.assertRefused(f"{{{mechanism}}}{','.join(parts)}", "malformed")
            for iterations in ("1", "4095", "1000001", "2147483648"):
                field = f"{{{mechanism}}}{iterations},{salt},{stored},{server}"
                self.assertRefused(field, "has not 4096 to 1000000 iterations")
            parse(f"{{{mechanism}}}1000000,{salt},{stored},{server}")

    def test_malformed_argon2(self) -> None:
        """A damaged Argon2 hash is refused."""
        salt, digest = "c2FsdHNhbHQ", "qVQ8m7ozNVzoeV1W0lpcI9V2SPUOK+NCcQHYOu+C/us"
        good = f"$argon2id$v=19$m=64,t=1,p=1${salt}${digest}"
        parse("{ARGON2ID}" + good)
        for bad in (
            "",
            "SECRET",
            good[:-1] + "SECRET" * 20,
            good.replace("argon2id", "argon2d"),
            good.replace("v=19", "v=20"),
            good.replace("t=1", "t=0"),
            good.replace("t=1", "t=01"),
            good.replace("t=1", "t=-1"),
            good.replace("m=64", "m=٦٤"),
            good.replace(salt, "c2FsdA"),
            good.replace(salt, salt[:-1] + "R"),
            good.replace(digest, digest[:40] + "R"),
            good.replace(digest, digest[:20]),
            good + "\n",
            good + "=",
        ):
            self.assertRefused("{ARGON2ID}" + bad, "is malformed")

    def test_argon2_that_exhausts_the_server(self) -> None:
        """Argon2 parameters that need too much, or contradict each other, are refused."""
        tail = "$c2FsdHNhbHQ$qVQ8m7ozNVzoeV1W0lpcI9V2SPUOK+NCcQHYOu+C/us"
        parse(f"{{ARGON2ID}}$argon2id$v=19$m=1048576,t=4,p=1{tail}")
        parse(f"{{ARGON2ID}}$argon2id$m=8,t=1,p=1{tail}")
        for parameters in (
            "m=1048577,t=1,p=1",
            "m=1048576,t=5,p=1",
            "m=8,t=600000,p=1",
            "m=65536,t=1,p=65",
            "m=15,t=1,p=2",
            "m=9999999999,t=9999999999,p=9999999999",
        ):
            self.assertRefused(f"{{ARGON2ID}}$argon2id$v=19${parameters}{tail}", "popd allows")

    def test_malformed_crypt(self) -> None:
        """A damaged crypt hash, or one of a method that popd does not have, is refused."""
        sha512, sha256, bcrypt_hash, _ = CRYPTS
        yescrypt = YESCRYPTS[0]
        for bad in (
            "$",
            "$SECRET$",
            "$1$salt$SECRET",
            "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$qVQ8m7ozNVzoeV1W0lpcIw",
            sha512[:-1],
            sha512 + "x",
            sha512 + "\n",
            sha512.replace("$6$", "$5$"),
            sha512.replace("$6$", "$6$rounds=999$"),
            sha512.replace("$6$", "$6$rounds=05000$"),
            sha512.replace("$6$", "$6$rounds=9999999999$"),
            sha512.replace("$6$", "$6$x"),
            sha256.replace("/", "\xe4"),
            bcrypt_hash[:-1],
            bcrypt_hash.replace("$2a$", "$2x$"),
            bcrypt_hash.replace("LYQZ.", "LYQZa"),
            yescrypt[:-1],
            yescrypt.replace("$j75$", "$jGT$"),
            yescrypt.replace("$j75$", "$jzz$"),
        ):
            self.assertRefused("{CRYPT}" + bad, "is malformed")

    def test_crypt_that_exhausts_the_server(self) -> None:
        """Costs and rounds are bounded."""
        sha512, sha256, bcrypt_hash, _ = CRYPTS
        parse(sha512.replace("$6$", "$6$rounds=10000000$"))
        for bad in (
            sha512.replace("$6$", "$6$rounds=10000001$"),
            sha256.replace("$5$", "$5$rounds=999999999$"),
            bcrypt_hash.replace("$05$", "$17$"),
            bcrypt_hash.replace("$05$", "$03$"),
        ):
            self.assertRefused(bad, "popd allows")

    @given(st.text() | st.from_regex(r"\{(PLAIN|SSHA|CRYPT|ARGON2ID)(\.HEX|\.B64)?\}.*"))
    def test_anything(self, field: str) -> None:
        """Any text is a stored password or a ValueError, and nothing else happens."""
        try:
            parse(field)
        except ValueError:
            return


class Discretion(SynchronousTestCase):
    """A stored password keeps to itself."""

    def test_repr(self) -> None:
        """Nothing but the scheme is shown."""
        self.assertEqual(repr(parse("{plain}secret")), "<StoredPassword PLAIN>")
        self.assertEqual(repr(parse(CRYPTS[2])), "<StoredPassword CRYPT>")

    def test_failure_is_no_mismatch(self) -> None:
        """What cannot be found out is an error: it must not look like a wrong password."""

        def fail(_password: bytes, _setting: bytes) -> bytes:
            raise OSError("out of memory")

        self.patch(crypt3, "crypt", fail)
        self.patch(crypt3, "knows", lambda _method: True)
        self.assertRaises(OSError, parse(CRYPTS[0]).verify, PASSWORD)
