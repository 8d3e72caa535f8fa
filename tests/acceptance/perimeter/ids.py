#!/usr/bin/python3
"""ids.py BUILD [NUMBERS]: polder's identifier checks against python3-stdnum, or, where that has no module for an
identifier, against a second implementation written here from the published rule.

For each identifier NUMBERS random well-formed numbers (default 40,000, the seed is fixed): nine tenths random characters
of the right shape, one tenth with the last characters changed until the reference accepts them, so that valid ones are
compared too. Every difference must be one of the exceptions of that identifier (EXCEPTIONS, explained in
docs/guide/detectors.md). An identifier fails where a difference is not explained, or where nothing was valid for both.
"""
import datetime
import os
import random
import re
import subprocess
import sys
import zlib

from stdnum import bic, iban, lei, luhn, numdb, verhoeff
from stdnum.at import uid as at_uid, vnr
from stdnum.be import nn, vat as be_vat
from stdnum.bg import egn, pnf, vat as bg_vat
from stdnum.ch import ssn as ch_ssn, uid as ch_uid
from stdnum.cy import vat as cy_vat
from stdnum.cz import dic, rc
from stdnum.de import idnr, vat as de_vat
from stdnum.dk import cpr, cvr
from stdnum.ee import ik, kmkr
from stdnum.es import cif, dni, nie, nif as es_nif
from stdnum.fi import alv, hetu
from stdnum.fr import nir, siren, siret, tva
from stdnum.gb import nhs, vat as gb_vat
from stdnum.gr import amka, vat as gr_vat
from stdnum.hr import oib
from stdnum.hu import anum
from stdnum.ie import pps, vat as ie_vat
from stdnum.iso7064 import mod_97_10
from stdnum.it import codicefiscale, iva
from stdnum.lt import asmens, pvm
from stdnum.lu import tva as lu_tva
from stdnum.lv import pvn
from stdnum.mt import vat as mt_vat
from stdnum.nl import bsn, btw
from stdnum.no import fodselsnummer, orgnr
from stdnum.pl import nip, pesel
from stdnum.pt import cc, nif as pt_nif
from stdnum.ro import cf, cnp
from stdnum.se import personnummer, vat as se_vat
from stdnum.si import ddv, emso
from stdnum.sk import dph

DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ALNUM = DIGITS + LETTERS


# ---- helpers of the second implementations and of the exceptions ----

def is_date(year, month, day):
    try:
        datetime.date(year, month, day)
        return True
    except ValueError:
        return False


def is_short_date(yy, month, day):
    return any(is_date(century + yy, month, day) for century in (1800, 1900, 2000))


def in_future(year, month, day):
    return is_date(year, month, day) and datetime.date(year, month, day) > datetime.date.today()


def cross_sum(values, weights):
    return sum(sum(divmod(v * w, 10)) for v, w in zip(values, weights))


def letter_as_two(c):
    return list(map(int, "%02d" % (LETTERS.index(c) + 1)))


# ---- second implementations, for what stdnum 1.18 does not have ----

CARD_PREFIXES = [  # regular expression of the beginning, lengths
    (r"220[0-4]", range(16, 20)), (r"222[1-9]|22[3-9]|2[3-6]|27[01]|2720", [16]), (r"30[0-5]|3095", [14]),
    (r"3[47]", [15]), (r"352[89]|35[3-8]", range(16, 20)), (r"36", [14, 16, 17, 18, 19]), (r"3[89]", [14]),
    (r"4", [13, 16, 19]), (r"50|5[6-8]", range(12, 20)), (r"5[1-5]", [16]), (r"6", range(12, 20)),
    (r"8[12]", range(16, 20)), (r"9792", [16])]


def card(s):
    return luhn.is_valid(s) and any(len(s) in lengths and re.match(p, s) for p, lengths in CARD_PREFIXES)


def de_social(s):
    """Check digit of the German pension insurance number: cross sums of products, modulo ten."""
    if not is_short_date(int(s[6:8]), int(s[4:6]) or 1, int(s[2:4]) or 1):  # 00: not proven
        return False
    values = list(map(int, s[:8])) + letter_as_two(s[8]) + list(map(int, s[9:11]))
    return cross_sum(values, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)) % 10 == int(s[11])


def de_health(s):
    values = letter_as_two(s[0]) + list(map(int, s[1:9]))
    return cross_sum(values, (1, 2) * 5) % 10 == int(s[9])


def de_idcard(s):
    """ICAO 9303 over nine characters; letters of the German alphabet for document numbers only."""
    if not re.fullmatch(r"[CFGHJKLMNPRTVWXYZ][0-9CFGHJKLMNPRTVWXYZ]{8}\d?", s) or not re.search(r"\d", s[:9]):
        return False
    return len(s) == 9 or sum(int(c, 36) * (7, 3, 1)[i % 3] for i, c in enumerate(s[:9])) % 10 == int(s[9])


def nir_open(s):
    """Sex, year, month, place of birth and order, without the key over them."""
    return re.fullmatch(r"[1278]\d\d(0[1-9]|1[0-2])(?!00|96)(\d\d|2[AB])(?!000)\d{3}(?!000)\d{3}", s) is not None


def hu_taj(s):
    odd, even = sum(map(int, s[0:8:2])), sum(map(int, s[1:8:2]))
    return int(s) > 0 and (3 * odd + 7 * even) % 10 == int(s[8])


def hu_adoszam(s):
    return anum.is_valid(s[:8]) and s[8] in "12345"


def lu_id(s):
    """Two check digits over the same eleven: Luhn's, then Verhoeff's."""
    return (1800 <= int(s[:4]) <= 2099 and is_date(int(s[:4]), int(s[4:6]), int(s[6:8]))
            and luhn.is_valid(s[:12]) and verhoeff.is_valid(s[:11] + s[12]))


def mt_id(s):
    return re.fullmatch(r"\d{6,7}[ABGHLMPZ]", s) is not None and int(s[:-1]) > 0


def uk_nino(s):
    return re.fullmatch(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", s) is not None


# ---- shapes ----

def shape(pattern):
    """'d' digit, 'l' letter, 'a' either, [set] one of it, else itself; alternatives with '|'."""
    alternatives = []
    for alternative in pattern.split("|"):
        parts = re.findall(r"\[[^\]]*\]|.", alternative)
        alternatives.append([{"d": DIGITS, "l": LETTERS, "a": ALNUM}.get(p, p.strip("[]")) for p in parts])

    def make(r):
        return "".join(r.choice(c) if len(c) > 1 else c for c in r.choice(alternatives))
    return make


def dated(order, before, after, month_plus=(0,), day_plus=(0,)):
    """Random digits with a date inside, most of them days that there are: order such as 'ymd' (yy mm dd)."""
    before, after = shape(before), shape(after)

    def make(r):
        y, m, d = r.randrange(100), r.randrange(1, 14), r.randrange(1, 33)
        if r.random() < 0.06:  # leap days, in years of a new century too
            y, m, d = r.choice((0, 0, y, y)), 2, 29
        if r.random() < 0.2:
            m, d = r.randrange(100), r.randrange(100)
        else:
            m, d = m + r.choice(month_plus), d + r.choice(day_plus)
        parts = {"y": "%02d" % y, "m": "%02d" % (m % 100), "d": "%02d" % (d % 100),
                 "Y": "%04d" % r.choice((1700, 1800, 1900, 1900, 2000, 2000, 2100))}
        parts["Y"] = parts["Y"][:2] + parts["y"]
        parts["z"] = r.choice("0899") + parts["y"]
        return before(r) + "".join(parts[c] for c in order) + after(r)
    return make


# Countries that polder knows and stdnum's registry of 2022 does not.
IBAN_MORE = {
    "AO": "21!n", "BF": "24!c", "BJ": "24!c", "CF": "23!n", "CG": "23!n", "CI": "24!c", "CM": "23!n", "CV": "21!n",
    "DZ": "22!n", "FK": "2!a12!n", "GA": "23!n", "GQ": "23!n", "GW": "2!c19!n", "HN": "4!a20!n", "IR": "22!n",
    "KM": "23!n", "MA": "24!n", "MG": "23!n", "ML": "24!c", "MN": "16!n", "MZ": "21!n", "NE": "2!a22!n", "NI": "4!a20!n",
    "OM": "3!n16!c", "SN": "2!a22!n", "SO": "19!n", "TD": "23!n", "TG": "2!a22!n", "YE": "4!a4!n18!c"}


def iban_make():
    forms = dict(IBAN_MORE)
    for a in LETTERS:
        for b in LETTERS:
            info = numdb.get("iban").info(a + b)[0]
            if info[1]:
                forms[a + b] = info[1]["bban"]
    countries = sorted(forms)

    def make(r):
        cc_ = r.choice(countries)
        s = "".join(r.choice({"n": DIGITS, "a": LETTERS, "c": ALNUM}[k])
                    for n, k in re.findall(r"(\d+)!([nac])", forms[cc_]) for _ in range(int(n)))
        if r.random() < 0.05:  # a character of another class, or one too many
            i = r.randrange(len(s))
            s = s[:i] + r.choice(ALNUM) * r.randrange(1, 3) + s[i + 1:]
        check = "%02d" % r.randrange(100)
        if r.random() < 0.3:
            check = iban.calc_check_digits(cc_ + "00" + s)
        elif r.random() < 0.2:  # letters where the check digits stand, right modulo 97
            check = next((a + b for a in LETTERS for b in ALNUM if mod_97_10.is_valid(s + cc_ + a + b)), check)
        return cc_ + check + s
    return make


# ---- the identifiers: name, rules (entity, country, rule's name or None for all), shape, reference, characters at the
# end that are tried to make a number valid (0: the shape does it) ----

def prefixed(module):
    return lambda s: module.is_valid(s[2:])


def hetu_reference(s):
    if len(s) == 10:
        return any(hetu.is_valid(s[:6] + sign + s[6:]) for sign in "-+")
    return hetu.is_valid(s)


def lt_ee(s):
    return ik.is_valid(s) or asmens.is_valid(s)


def mva(s):
    return orgnr.is_valid(s.replace("NO", "").replace("MVA", ""))


IDS = [
    ("iban", [("iban", "", None)], iban_make(), lambda s: iban.is_valid(s, check_country=False), 0),
    ("payment-card", [("payment-card", "", None)],
     shape("4dddddddddddd|4ddddddddddddddd|5ddddddddddddddd|2ddddddddddddddd|3ddddddddddddd|3dddddddddddddd|6ddddddddddd|"
           "6ddddddddddddddd|6dddddddddddddddddd|8ddddddddddddddd|9792dddddddddddd|dddddddddddddddd"), card, 1),
    ("bic", [("bic", "", None)], shape("llllllaa|llllllaaaaa|llll[DFGINE][DEFRTL]aa|llll[DFGINE][DEFRTL]aaaaa"), bic.is_valid, 0),
    ("lei", [("lei", "", None)], shape("dddd00aaaaaaaaaaaadd|aaaaaaaaaaaaaaaaaadd|dddd00aaaaaaaaaaaald|dddd00aaaaaaaaaaaadl"), lei.is_valid, 2),
    ("vat-at", [("vat", "", None)], shape("ATUdddddddd"), prefixed(at_uid), 1),
    ("vat-be", [("vat", "", None)], shape("BE0ddddddddd|BEdddddddddd"), prefixed(be_vat), 2),
    ("vat-bg", [("vat", "", None)], shape("BGddddddddd|BGdddddddddd"), prefixed(bg_vat), 1),
    ("vat-ch", [("vat", "", None)],
     shape("CHEddddddddd|CHEdddddddddMWST|CHEdddddddddTVA|CHEdddddddddIVA|CHEdddddddddTPV|CHEdddddddddXYZ"),
     lambda s: ch_uid.is_valid(s[:12]) and s[12:] in ("", "MWST", "TVA", "IVA", "TPV"), 0),
    ("vat-cy", [("vat", "", None)], shape("CYddddddddl"), prefixed(cy_vat), 1),
    ("vat-cz", [("vat", "", None)], shape("CZdddddddd|CZ6dddddddd|CZddddddddd|CZdddddddddd"), prefixed(dic), 1),
    ("vat-de", [("vat", "", None)], shape("DEddddddddd"), prefixed(de_vat), 1),
    ("vat-dk", [("vat", "", None)], shape("DKdddddddd"), prefixed(cvr), 1),
    ("vat-ee", [("vat", "", None)], shape("EEddddddddd"), prefixed(kmkr), 1),
    ("vat-el", [("vat", "", None)], shape("ELddddddddd"), prefixed(gr_vat), 1),
    ("vat-es", [("vat", "", None)], shape("ESldddddddd|ESldddddddl|ESddddddddl"), prefixed(es_nif), 1),
    ("vat-fi", [("vat", "", None)], shape("FIdddddddd"), prefixed(alv), 1),
    ("vat-fr", [("vat", "", None)], shape("FRddddddddddd|FRaaddddddddd|FRdd000dddddd"), prefixed(tva), 2),
    ("vat-gb", [("vat", "", None)],
     shape("GBddddddddd|GBdddddddddddd|GBGDddd|GBHAddd|GBGD8888ddddd|GBHA8888ddddd|GB[GH]lddd"), prefixed(gb_vat), 1),
    ("vat-hr", [("vat", "", None)], shape("HRddddddddddd"), prefixed(oib), 1),
    ("vat-hu", [("vat", "", None)], shape("HUdddddddd"), prefixed(anum), 1),
    ("vat-ie", [("vat", "", None)], shape("IEdddddddl|IEdddddddll|IEdldddddl"), prefixed(ie_vat), 1),
    ("vat-it", [("vat", "", None)], shape("ITddddddddddd|ITddddddd0ddd"), prefixed(iva), 1),
    ("vat-lt", [("vat", "", None)], shape("LTddddddd1d|LTdddddddddd1d|LTddddddddd"), prefixed(pvm), 1),
    ("vat-lu", [("vat", "", None)], shape("LUdddddddd"), prefixed(lu_tva), 2),
    ("vat-lv", [("vat", "", None)], shape("LV4dddddddddd|LVddddddddddd"), prefixed(pvn), 1),
    ("vat-mt", [("vat", "", None)], shape("MTdddddddd"), prefixed(mt_vat), 2),
    ("vat-nl", [("vat", "", None)], shape("NLdddddddddBdd"), prefixed(btw), 2),
    ("vat-no", [("vat", "", None)], shape("NOdddddddddMVA|dddddddddMVA|NOddddddddd"), mva, 0),
    ("vat-pl", [("vat", "", None)], shape("PLdddddddddd"), prefixed(nip), 1),
    ("vat-pt", [("vat", "", None)], shape("PTddddddddd"), prefixed(pt_nif), 1),
    ("vat-ro", [("vat", "", None)], shape("ROddddd|ROdddddd|ROddddddd|ROdddddddd|ROddddddddd|ROdddddddddd|ROddddddddddddd"),
     prefixed(cf), 1),
    ("vat-se", [("vat", "", None)], shape("SEdddddddddd01|SEdddddddddddd"), prefixed(se_vat), 0),
    ("vat-si", [("vat", "", None)], shape("SIdddddddd"), prefixed(ddv), 1),
    ("vat-sk", [("vat", "", None)], shape("SKdddddddddd"), prefixed(dph), 1),
    ("vat-xi", [("vat", "", None)], shape("XIddddddddd"), prefixed(gb_vat), 2),
    ("at-uid (bare)", [("vat", "AT", None)], shape("Udddddddd"), at_uid.is_valid, 1),
    ("be-kbo (bare)", [("vat", "BE", None)], shape("0ddddddddd|1ddddddddd|dddddddddd"), be_vat.is_valid, 2),
    ("es-cif (bare)", [("vat", "ES", None)], shape("ldddddddd|ldddddddl"), cif.is_valid, 1),
    ("hu-adoszam (bare)", [("vat", "HU", None)], shape("ddddddddddd"), hu_adoszam, 0),
    ("nl-btw (bare)", [("vat", "NL", None)], shape("dddddddddBdd"), btw.is_valid, 2),
    ("pl-nip (bare)", [("vat", "PL", None)], shape("dddddddddd"), nip.is_valid, 1),
    ("fr-siren", [("fr-siren", "FR", "SIREN")], shape("ddddddddd"), siren.is_valid, 1),
    ("fr-siret", [("fr-siren", "FR", "SIRET")], shape("dddddddddddddd|356000000ddddd"), siret.is_valid, 2),
    ("it-partita-iva", [("it-partita-iva", "IT", None)], shape("ddddddddddd|ddddddd0ddd"), iva.is_valid, 1),
    ("de-tax-id", [("de-tax-id", "DE", None)], None, idnr.is_valid, 1),
    ("de-social-insurance", [("de-social-insurance", "DE", None)], dated("dmy", "dd", "lddd"), de_social, 1),
    ("de-health-insurance", [("de-health-insurance", "DE", None)], shape("lddddddddd"), de_health, 1),
    ("de-id-card", [("de-id-card", "DE", None)],
     shape("laaaaaaaa|aaaaaaaaad|[LCT]dddddddd|[LCT]ddddddddd|[LMNPRTVWXY][CFGHJK01234][CFGHJK01234]dddddd|"
           "[CFGHJKLMNPRTVWXYZ][CFGHJK01234][CFGHJK01234]ddddddd"), de_idcard, 1),
    ("fr-nir", [("fr-nir", "FR", "numéro de sécurité sociale")],
     shape("ddddddddddddddd|[12]dd0[123456789]dddddddddd|[12]dd1[012]dddddddddd|[12]dd0[123456789]2Adddddddd|"
           "[12]dd1[012]2Bdddddddd|[12]dd0[123456789]2Cdddddddd"), nir.is_valid, 2),
    ("fr-nir (no key)", [("fr-nir", "FR", "numéro de sécurité sociale sans clé")],
     shape("[12345678]dd0d9ddddddd|[12]dd1dddddddd0d|[12]dd0ddddd00d0d|[12]dd1[012]2[ABC]dddddd|ddddddddddddd"), nir_open, 0),
    ("es-dni", [("es-dni", "ES", None)], shape("ddddddddl|ddddddddl|[KLM]dddddddl"), es_nif.is_valid, 1),
    ("es-nie", [("es-nie", "ES", None)], shape("[XYZ]dddddddl|ldddddddl"), nie.is_valid, 1),
    ("it-codice-fiscale", [("it-codice-fiscale", "IT", None)],
     shape("lllllldd[ABCDEHLMPRST]ddldddl|lllllldd[ABCDEHLMPRST][01234567]dldddl|llllllaalaalaaal|"
           "llllll[0123456789LMNPQRSTUV][0123456789LMNPQRSTUV][ABCDEHLMPRST][01LM]ald[0123456789LMNPQRSTUV]dl"),
     codicefiscale.is_valid, 1),
    ("nl-bsn", [("nl-bsn", "NL", None)], shape("ddddddddd"), bsn.is_valid, 1),
    ("pl-pesel", [("pl-pesel", "PL", None)], dated("ymd", "", "ddddd", month_plus=(0, 20, 40, 60, 80)), pesel.is_valid, 1),
    ("be-niss", [("be-niss", "BE", None)], dated("ymd", "", "ddddd", month_plus=(0, 0, 20, 40)), nn.is_valid, 2),
    ("se-personnummer (10)", [("se-personnummer", "SE", None)], dated("ymd", "", "dddd", day_plus=(0, 0, 60)),
     personnummer.is_valid, 1),
    ("se-personnummer (12)", [("se-personnummer", "SE", None)], dated("Ymd", "", "dddd", day_plus=(0, 0, 60)),
     personnummer.is_valid, 1),
    ("fi-hetu", [("fi-hetu", "FI", None)], None, hetu_reference, 1),
    ("dk-cpr", [("dk-cpr", "DK", None)], dated("dmy", "", "dddd"), cpr.is_valid, 0),
    ("no-fnr", [("no-fnr", "NO", None)], dated("dmy", "", "ddddd", month_plus=(0, 0, 40, 80, 65), day_plus=(0, 0, 40)),
     fodselsnummer.is_valid, 2),
    ("at-svnr", [("at-svnr", "AT", None)], None, vnr.is_valid, 0),
    ("pt-nif", [("pt-nif", "PT", "NIF")], shape("ddddddddd"), pt_nif.is_valid, 1),
    ("pt-cc", [("pt-nif", "PT", "cartão de cidadão")], shape("dddddddddlld|dddddddddaad"), cc.is_valid, 1),
    ("ie-pps", [("ie-pps", "IE", None)], shape("dddddddl|dddddddll|dddddddl[AHWTX]"), pps.is_valid, 0),
    ("cz-rodne-cislo (10)", [("cz-rodne-cislo", "CZ", None)], dated("ymd", "", "dddd", month_plus=(0, 50, 20, 70, 40)),
     rc.is_valid, 1),
    ("cz-rodne-cislo (9)", [("cz-rodne-cislo", "CZ", None)], dated("ymd", "", "ddd", month_plus=(0, 50)), rc.is_valid, 0),
    ("ro-cnp", [("ro-cnp", "RO", None)], dated("ymd", "d", "dddddd"), cnp.is_valid, 1),
    ("bg-egn", [("bg-egn", "BG", "ЕГН")], dated("ymd", "", "dddd", month_plus=(0, 20, 40)), egn.is_valid, 1),
    ("bg-lnc", [("bg-egn", "BG", "ЛНЧ")], shape("dddddddddd"), pnf.is_valid, 1),
    ("hr-oib", [("hr-oib", "HR", None)], shape("ddddddddddd"), oib.is_valid, 1),
    ("gr-amka", [("gr-amka", "GR", None)], dated("dmy", "", "ddddd"), amka.is_valid, 1),
    ("gr-afm", [("gr-afm", "GR", None)], shape("ddddddddd"), gr_vat.is_valid, 1),
    ("lt-ee-id", [("lt-ee-id", "LT EE", None)], dated("ymd", "d", "dddd"), lt_ee, 1),
    ("lv-personas-kods", [("lv-personas-kods", "LV", None)], dated("dmy", "", "ddddd"), pvn.is_valid, 1),
    ("si-emso", [("si-emso", "SI", None)], dated("dmz", "", "dddddd"), emso.is_valid, 1),
    ("hu-taj", [("hu-taj", "HU", None)], shape("ddddddddd"), hu_taj, 1),
    ("lu-matricule", [("lu-matricule", "LU", None)], dated("Ymd", "", "ddddd"), lu_id, 2),
    ("mt-id", [("mt-id", "MT", None)], shape("dddddddl|ddddddl"), mt_id, 0),
    ("cy-tic", [("cy-tic", "CY", None)], shape("ddddddddl"), cy_vat.is_valid, 1),
    ("ch-ahv", [("ch-ahv", "CH", None)], shape("756dddddddddd|ddddddddddddd"), ch_ssn.is_valid, 1),
    ("uk-nhs", [("uk-nhs", "GB", None)], shape("dddddddddd"), nhs.is_valid, 1),
    ("uk-nino", [("uk-nino", "GB", None)], shape("llddddddl|lldddddd[ABCD]"), uk_nino, 0),
]


def tax_make(r):
    """A German tax number's shape: one digit twice or three times among ten, or one more, or any digits."""
    k = r.random()
    if k < 0.2:
        s = "".join(r.choice(DIGITS) for _ in range(10))
    else:
        d = r.sample(DIGITS, 10)
        s = d[:8] + [d[0]] * 2 if k < 0.6 else d[:9] + [d[0]]
        r.shuffle(s)
        s = "".join(s)
    return s + r.choice(DIGITS)


def hetu_make(r):
    date = "%02d%02d%02d" % (r.randrange(1, 33), r.randrange(1, 14), r.randrange(100))
    if r.random() < 0.06:
        date = "2902%02d" % r.choice((0, 0, r.randrange(100)))
    sign = r.choice(["", "", "A", "A", r.choice("BCDEFUVWXYGZ")])
    serial = "%03d" % r.choice([r.randrange(1000), r.randrange(4)]) if r.random() < 0.2 else "%03d" % r.randrange(1000)
    return date + sign + serial + r.choice(DIGITS + "ABCDEFHJKLMNPRSTUVWXY")


def svnr_make(r):
    """The check digit stands in the middle: some are made valid here."""
    s = "%d%02d%d" % (r.randrange(10), r.randrange(100), r.randrange(10))
    s += "%02d%02d%02d" % (r.randrange(1, 33), r.randrange(1, 18), r.randrange(100))
    if r.random() < 0.1:
        check = vnr.calc_check_digit(s)
        if len(check) == 1:
            s = s[:3] + check + s[4:]
    return s


MAKERS = {"de-tax-id": tax_make, "fi-hetu": hetu_make, "at-svnr": svnr_make}


# ---- exceptions: what differs on purpose; (word, does polder accept it, which numbers) ----

def rc_month(s):  # stdnum takes the month modulo 50, then 20, so that 40 to 49 and 90 to 99 pass
    return (40 <= int(s[2:4]) <= 49) or int(s[2:4]) >= 90


def niss_date(s):
    month, day = int(s[2:4]), int(s[4:6])
    month = month % 20 if month <= 52 else 99
    return month > 12 or month != 0 and day != 0 and not is_short_date(int(s[:2]), month, day)


def fnr_undated(s):
    day, month, year, serial = int(s[:2]), int(s[2:4]), int(s[4:6]), int(s[6:9])
    if day >= 80:
        return "fh"
    if 66 <= month <= 77 or 81 <= month <= 92:
        return "synthetic"
    if 500 <= serial and not (serial < 750 and year >= 54 or year < 40 or serial >= 900):
        return "century"
    day, month = day - 40 if day > 40 else day, month - 40 if month > 40 else month
    if serial < 500:
        century = 1900
    elif serial < 750 and year >= 54:
        century = 1800
    else:
        century = 2000 if year < 40 else 1900
    if in_future(century + year, month, day):
        return "future"
    return "leap" if not is_date(century + year, month, day) and is_short_date(year, month, day) else None


def cpr_future(s):
    yy, c = int(s[4:6]), int(s[6])
    year = yy + (1900 if c <= 3 or c in (4, 9) and yy >= 37 else 1800 if 5 <= c <= 8 and yy >= 58 else 2000)
    return in_future(year, int(s[2:4]), int(s[:2]))


EXCEPTIONS = {
    "iban": [("country newer than stdnum's registry", True, lambda s: s[:2] in IBAN_MORE),
             ("letters as check digits", False, lambda s: not s[2:4].isdigit())],
    "bic": [("no such country", False, lambda s: not known_country(s[4:6]))],
    "de-tax-id": [("a digit three times in a row", False, lambda s: re.search(r"(\d)\1\1", s[:10]))],
    "fr-nir": [("no such sex or civil status", False, lambda s: s[0] in "0569"),
               ("no such month", False, lambda s: not (1 <= int(s[3:5]) <= 12 or 20 <= int(s[3:5]) <= 42 or int(s[3:5]) >= 50))],
    "it-codice-fiscale": [("day above 71", False, lambda s: codice_day(s) > 71)],
    "be-niss": [("no such date", False, niss_date),
                ("born in a year to come", True, lambda s: 2000 + int(s[:2]) > datetime.date.today().year)],
    "se-personnummer (10)": [("samordningsnummer (day + 60)", True, lambda s: 61 <= int(s[4:6]) <= 91)],
    "se-personnummer (12)": [("samordningsnummer (day + 60)", True, lambda s: 61 <= int(s[6:8]) <= 91),
                             ("century not 18, 19, 20", False, lambda s: s[:2] not in ("18", "19", "20"))],
    "fi-hetu": [("temporary number (900 to 999)", True, lambda s: s[-4] == "9"),
                ("sign of the century in use since 2023", True, lambda s: len(s) == 11 and s[6] in "BCDEFUVWXY")],
    "dk-cpr": [("born in days to come", True, cpr_future)],
    "no-fnr": [(word, True, lambda s, key=key: fnr_undated(s) == key) for key, word in (
        ("fh", "FH number (day from 80 on)"), ("synthetic", "synthetic number (month + 65 or + 80)"),
        ("century", "serial and year of no century"), ("future", "born in days to come"), ("leap", "leap day of another century"))],
    "ro-cnp": [("leap day of another century", True, lambda s: s[0] in "789" and s[1:7] == "000229")],
    "lei": [("letters as check digits", False, lambda s: not s[18:].isdigit())],
    "at-svnr": [("no such date", False, lambda s: not (is_short_date(int(s[8:]), int(s[6:8]), int(s[4:6])) or
                                                       int(s[6:8]) in (13, 14, 15) and 1 <= int(s[4:6]) <= 31))],
    "be-kbo (bare)": [("first digit not 0 or 1", False, lambda s: s[0] not in "01")],
    "cz-rodne-cislo (10)": [("month 40 to 49 or from 90 on", False, rc_month)],
    "cz-rodne-cislo (9)": [("month 40 to 49 or from 90 on", False, rc_month)],
    "vat-cz": [("month 40 to 49 or from 90 on", False, lambda s: rc_month(s[2:]))],
    "vat-sk": [("month 40 to 49 or from 90 on", False, lambda s: rc_month(s[2:]))],
    "lv-personas-kods": [("number without a date (32…)", True, lambda s: s.startswith("32")),
                         ("century digit not 0, 1, 2, or a legal person", False, lambda s: s[6] > "2" or s[0] > "3")],
    "vat-lv": [("number without a date (32…)", True, lambda s: s.startswith("LV32")),
               ("century digit not 0, 1, 2", False, lambda s: s[2] <= "3" and s[8] > "2")],
}


def known_country(cc_):
    return cc_ in COUNTRIES


def codice_day(s):
    value = {c: i for i, c in enumerate("LMNPQRSTUV")}
    a, b = (int(c) if c.isdigit() else value[c] for c in s[9:11])
    return 10 * a + b


COUNTRIES = set("""AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD
GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN
KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE
NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM
SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT
ZA ZM ZW XK""".split())


# ---- the comparison ----

def numbers(name, make, reference, tail, count):
    r = random.Random(zlib.crc32(name.encode()))
    make = make or MAKERS[name]
    made = []
    for i in range(count):
        s = make(r)
        if tail and i % 10 == 0:
            s = mend(s, reference, tail, r)
        made.append(s)
    return made


def mend(s, reference, tail, r):
    """Other characters at the end until the reference accepts; as it was where none does."""
    head, end = s[:-tail], s[-tail:]
    sets = [DIGITS if c.isdigit() else LETTERS for c in end]
    tries = [a for a in sets[0]] if tail == 1 else [a + b for a in sets[0] for b in sets[1]]
    r.shuffle(tries)
    for t in tries:
        if reference(head + t):
            return head + t
    return s


def main():
    build, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40000
    ask = build + "/tests/e2e/detect/ids_ask"
    rules = [line.split("\t") for line in subprocess.run([ask, "--list"], capture_output=True, text=True, check=True)
             .stdout.splitlines()]
    passed = failed = 0
    seen = set()
    guide = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../docs/guide/detectors.md"),
                 encoding="utf-8").read()
    for name, list_ in EXCEPTIONS.items():
        for word, _, _ in list_:
            if word not in guide:
                print("exception of %s is not in docs/guide/detectors.md: %s" % (name, word))
                failed += 1
    print("%-22s %8s %10s %8s %10s" % ("identifier", "numbers", "both valid", "agree", "explained"))
    for name, which, make, reference, tail in IDS:
        index = [i for i, entity, country, rule in rules for e, c, n in which
                 if e == entity and c == country and n in (None, rule)]
        seen.update(index)
        made = numbers(name, make, reference, tail, count)
        answer = subprocess.run([ask], input="".join("%s %s\n" % (",".join(index), s) for s in made), capture_output=True,
                                text=True, check=True).stdout.split()
        both = agree = 0
        explained, unexplained = {}, []
        for s, ours in zip(made, answer):
            ours, theirs = ours == "1", bool(reference(s))
            if ours == theirs:
                agree += 1
                both += ours
                continue
            for word, accepts, fits in EXCEPTIONS.get(name, []):
                if accepts == ours and fits(s):
                    explained[word] = explained.get(word, 0) + 1
                    break
            else:
                unexplained.append((s, ours))
        ok = index and len(answer) == count and not unexplained and both * 200 >= count
        print("%-22s %8d %10d %8d %10d %s" % (name, len(made), both, agree, sum(explained.values()), "ok" if ok else "FAIL"))
        for word, n in explained.items():
            print("    %-6d %s" % (n, word))
        for s, ours in unexplained[:5]:
            print("    not explained: %s, valid only for %s" % (s, "polder" if ours else "the reference"))
        if both * 200 < count:
            print("    fewer than one in two hundred was valid for both: nothing was compared")
        passed, failed = (passed + 1, failed) if ok else (passed, failed + 1)
    for rule in rules:
        if rule[0] not in seen:
            print("rule %s (%s) is compared with nothing" % (rule[3], rule[1]))
            failed += 1
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
