/* Words that stand near identifiers, in the languages of the country and in English. How they are written: ids.h. */
#include "data/detect/ids_check.h"

#define WORDS(name, ...) const char *const id_words_##name[] = {__VA_ARGS__, NULL}

/* Accounts and organisations. */
WORDS(iban, "iban", "bank account", "account number", "account no", "acct", "bankverbindung", "kontonummer*",
      "konto nr", "kontoverbindung", "compte bancaire", "numéro de compte", "rib", "rekeningnummer*", "bankrekening*",
      "cuenta bancaria", "número de cuenta", "numero de cuenta", "conto corrente", "coordinate bancarie",
      "conta bancária", "numer konta", "rachunek bankowy", "rachunku", "číslo účtu", "bankový účet", "bankovní účet",
      "bankszámla*", "számlaszám*", "cont bancar", "bankkonto*", "tilinumero*", "kontonr", "τραπεζικός λογαριασμός",
      "λογαριασμός", "банкова сметка", "pangakonto", "banko sąskait*", "bankas kont*", "bančni račun", "žiro račun",
      "broj računa", "transaktionskonto");
WORDS(card, "credit card*", "debit card*", "payment card*", "card number", "card no", "cardnumber", "ccnum",
      "cc number", "pan", "visa", "mastercard", "amex", "american express", "maestro", "kreditkarte*", "kartennummer*",
      "carte bancaire", "carte de crédit", "carte bleue", "numéro de carte", "creditcard*", "kaartnummer*",
      "betaalkaart*", "tarjeta de crédito", "tarjeta de débito", "número de tarjeta", "tarjeta", "carta di credito",
      "numero carta", "cartão de crédito", "numer karty", "karta kredytowa", "karty kredytowej", "číslo karty",
      "bankkártya*", "kártyaszám*", "card de credit", "kreditkort*", "kortnummer*", "luottokortti*", "kortin numero",
      "πιστωτική κάρτα", "кредитна карта", "номер на карта", "kreditna kartica", "broj kartice", "krediidikaart*",
      "kredito kortel*", "kredītkart*");
WORDS(bic, "bic", "swift", "swift code", "swiftcode", "bic code", "bank identifier");
WORDS(lei, "lei", "legal entity identifier*", "lei code", "rechtsträger*", "gleif");
WORDS(vat, "vat", "vat id", "vat no", "vat number", "vatin", "vat reg*", "value added tax", "ust id", "ust idnr",
      "ustid*", "ustidnr", "umsatzsteuer*", "uid", "uid nr", "uid nummer", "mwst", "mwst nr", "tva", "tva intracom*",
      "numéro de tva", "n tva", "btw", "btw nr", "btw nummer*", "btw id*", "iva", "nif", "nif iva", "partita iva",
      "p iva", "número de iva", "nip", "dič", "ič dph", "áfa", "adószám*", "cod tva", "cif", "cui", "moms", "momsnr",
      "momsregistrering*", "momsnummer*", "alv", "alv numero*", "αφμ", "α φ μ", "φπα", "ддс", "ин по ддс",
      "идентификационен номер", "pdv", "pdv id", "oib", "km kood", "kmkr", "käibemaks*", "pvm", "pvm kod*", "pvn",
      "ddv", "id za ddv", "mva", "org nr", "cvr", "se nr", "kvk", "siren", "company number");
WORDS(at_uid, "uid", "uid nr", "uid nummer*", "umsatzsteuer*", "ust id*", "atu", "vat");
WORDS(be_kbo, "kbo", "bce", "ondernemingsnummer*", "numéro d entreprise", "btw", "tva", "rpr", "rpm",
      "unternehmensnummer*", "enterprise number", "vat");
WORDS(es_cif, "cif", "nif", "n i f", "c i f", "iva", "vat", "identificación fiscal", "identificacion fiscal",
      "razón social");
WORDS(hu_adoszam, "adószám*", "adoszam*", "áfa", "tax number", "vat", "közösségi adószám*");
WORDS(nl_btw, "btw", "btw nr", "btw nummer*", "btw id*", "omzetbelasting*", "vat", "ob nummer");
WORDS(pl_nip, "nip", "numer identyfikacji podatkowej", "nr nip", "identyfikacji podatkowej", "vat", "podatnik*");
WORDS(siren, "siren", "siret", "rcs", "r c s", "numéro siren", "n siren", "immatriculée", "immatriculé",
      "registre du commerce", "insee", "sirene");
WORDS(siret, "siret", "siren", "numéro siret", "n siret", "établissement", "etablissement", "rcs", "insee", "sirene");
WORDS(it_iva, "partita iva", "p iva", "piva", "p i", "iva", "codice fiscale", "c f", "vat", "registro imprese");

/* Germany, Austria, Switzerland. */
WORDS(de_tax, "steuer id", "steuerid", "steuer idnr", "steueridentifikationsnummer*", "steuer identifikationsnummer*",
      "steuerliche identifikationsnummer*", "identifikationsnummer*", "idnr", "id nr", "idn", "tin", "steuernummer*",
      "german tax id", "tax id", "tax identification number", "finanzamt", "bundeszentralamt für steuern");
WORDS(de_social, "sozialversicherungsnummer*", "sozialversicherungsausweis*", "sv nummer", "sv nr", "svnr",
      "sv ausweis", "rentenversicherungsnummer*", "rentenversicherung*", "rv nummer", "rvnr", "versicherungsnummer*",
      "vsnr", "vers nr", "versicherungsnr", "rentennummer*", "social security number", "social insurance number",
      "pension insurance");
WORDS(de_health, "krankenversichertennummer*", "krankenversicherungsnummer*", "versichertennummer*", "versicherten nr",
      "kvnr", "kv nr", "kv nummer", "krankenkasse*", "gesundheitskarte*", "egk", "versichertenkarte*",
      "krankenversicherung*", "versichertennr", "health insurance number", "health insurance");
WORDS(de_idcard, "personalausweis*", "ausweisnummer*", "ausweis nr", "ausweisnr", "perso", "reisepass*", "passnummer*",
      "pass nr", "seriennummer des ausweises", "identity card", "id card", "passport", "passport number", "passport no",
      "ausweisdokument*", "dokumentennummer*");
WORDS(at_svnr, "svnr", "sv nr", "sv nummer*", "sozialversicherungsnummer*", "vsnr", "versicherungsnummer*", "e card",
      "ecard", "sozialversicherung*", "vnr", "social security number", "social insurance number");
WORDS(ch_ahv, "ahv", "ahv nr", "ahv nummer*", "ahvn13", "ahvn", "avs", "numéro avs", "n avs", "navs", "navs13", "oasi",
      "numero avs", "sozialversicherungsnummer*", "ssn", "social security number", "versichertennummer*", "nss",
      "numéro d assuré*");

/* France, Benelux. */
WORDS(fr_nir, "nir", "sécurité sociale", "securite sociale", "numéro de sécurité sociale", "sécu", "n sécu", "secu",
      "numéro de sécu", "n ss", "nº ss", "no ss", "carte vitale", "numéro insee", "insee", "assuré social",
      "immatriculation", "sécurité sociale n", "cpam", "ameli", "social security number", "social security", "nss");
WORDS(nl_bsn, "bsn", "burgerservicenummer*", "burger service nummer", "sofinummer*", "sofi nummer", "sofi nr",
      "persoonsnummer*", "citizen service number", "bsn nummer*", "rsin");
WORDS(be_niss, "niss", "insz", "rijksregisternummer*", "rijksregister*", "rrn", "registre national", "numéro national",
      "numéro de registre national", "nationaal nummer", "nrn", "nn", "nationalregisternummer*", "nationalregister*",
      "national register number", "national number", "bis nummer", "numéro bis", "identificatienummer*", "eid");
WORDS(lu_id, "matricule", "matricule national", "numéro d identification national", "cnss", "matrikel*", "ccss",
      "sozialversicherungsmatrikel", "national identification number", "nin", "numéro matricule", "matricule n");

/* Nordic, Baltic. */
WORDS(se_pnr, "personnummer*", "person nr", "personnr", "pnr", "p nr", "samordningsnummer*", "födelsenummer*",
      "personal identity number", "swedish personal number", "personal number", "svensk id", "född");
WORDS(fi_hetu, "henkilötunnu*", "henkilotunnu*", "hetu", "hetun", "sotu", "sosiaaliturvatunnu*", "personbeteckning*",
      "personal identity code", "syntymäaika", "finnish id");
WORDS(dk_cpr, "cpr", "cpr nr", "cpr nummer*", "cprnr", "cprnummer*", "personnummer*", "personnr", "født", "danish id",
      "civil registration number", "cpr number");
WORDS(no_fnr, "fødselsnummer*", "fodselsnummer*", "fnr", "personnummer*", "fødselsnr", "d nummer*", "dnummer*", "født",
      "national identity number", "norwegian id", "birth number", "personnr", "h nummer", "fødselsdato");
WORDS(lt_ee, "isikukood*", "isiku kood*", "asmens kod*", "asmens kodas", "a k", "asm kodas", "personal code",
      "personal identification code", "id kood*", "ik", "isikutunnistus*", "asmens tapatyb*");
WORDS(lv_pk, "personas kod*", "personas kods", "pers kods", "p k", "pk", "personal code", "personas koda",
      "identitātes kart*", "latvian id");

/* Isles. */
WORDS(ie_pps, "pps", "ppsn", "pps no", "pps number", "personal public service", "rsi", "rsi no", "uimhir psp", "psp",
      "social welfare", "revenue", "social security number");
WORDS(uk_nhs, "nhs", "nhs no", "nhs number", "nhs num*", "patient", "patient number", "health number", "chi number",
      "gp practice");
WORDS(uk_nino, "nino", "ni number", "ni no", "national insurance*", "nat ins", "hmrc", "nin", "national insurance no",
      "insurance number", "payroll");

/* South. */
WORDS(es_dni, "dni", "d n i", "nif", "n i f", "documento nacional de identidad", "documento de identidad", "identidad",
      "carnet de identidad", "carné de identidad", "nan", "identity card", "spanish id", "carnet d identitat");
WORDS(es_nie, "nie", "n i e", "número de identidad de extranjero*", "identidad de extranjero*", "extranjero*",
      "extranjería", "nif", "tarjeta de residencia", "residencia", "tie", "foreigner identity number");
WORDS(pt_nif, "nif", "n i f", "contribuinte", "número de contribuinte", "n contribuinte", "nº contribuinte", "nipc",
      "identificação fiscal", "número de identificação fiscal", "numero de contribuinte", "cartão de contribuinte",
      "portuguese tax", "tax number", "fiscal number");
WORDS(pt_cc, "cartão de cidadão", "cartao de cidadao", "cartão do cidadão", "cc n", "nº cc", "número de documento",
      "identificação civil", "bilhete de identidade", "citizen card", "documento de identificação");
WORDS(it_cf, "codice fiscale", "cod fisc", "cod fiscale", "c f", "cf", "codfisc", "codice fisc", "tessera sanitaria",
      "fiscal code", "italian tax code", "steuernummer");
WORDS(mt_id, "karta tal identità", "karta tal identita", "karta ta l identità", "numru tal karta", "id card",
      "id card no", "identity card", "identity card number", "maltese id", "numru tal identità", "id number", "id no");
WORDS(cy_tic, "αφτ", "α φ τ", "αριθμός φορολογικής ταυτότητας", "φορολογικής ταυτότητας", "φπα", "tic", "t i c",
      "tax identification code", "tax identification number", "cyprus tax", "vergi kimlik");
WORDS(gr_amka, "αμκα", "α μ κ α", "amka", "a m k a", "αριθμός μητρώου κοινωνικής", "κοινωνικής ασφάλισης",
      "social security number", "ασφαλισμένος", "ασφαλισμένου");
WORDS(gr_afm, "αφμ", "α φ μ", "afm", "a f m", "φορολογικού μητρώου", "αριθμός φορολογικού", "δου", "δ ο υ", "tin",
      "tax identification number", "tax number", "greek tax", "vat");

/* East. */
WORDS(pl_pesel, "pesel", "nr pesel", "numer pesel", "pesel number", "peselu", "polish id");
WORDS(cz_rc, "rodné čísl*", "rodné č", "rodného čísla", "rodným číslem", "rodne cisl*", "rodneho cisla", "r č", "rč",
      "rc", "r c", "rč č", "narozen*", "nar", "birth number", "birth identification number", "personal number",
      "rodnými čísly");
WORDS(hu_taj, "taj", "taj szám*", "tajszám*", "taj kártya*", "társadalombiztosítási*", "társadalombiztosítás",
      "tb szám", "social security number", "health insurance number");
WORDS(ro_cnp, "cnp", "c n p", "cod numeric personal", "codul numeric personal", "codului numeric personal", "buletin",
      "carte de identitate", "personal numerical code", "romanian id");
WORDS(bg_egn, "егн", "е г н", "egn", "e g n", "единен граждански номер", "единния граждански номер", "граждански номер",
      "роден*", "unified civil number", "uniform civil number", "лична карта");
WORDS(bg_lnc, "лнч", "л н ч", "lnch", "lnc", "личен номер на чужденец", "чужденец", "personal number of a foreigner");
WORDS(si_emso, "emšo", "emso", "enotna matična številka", "enotne matične številke", "matična številka", "jmbg", "јмбг",
      "jedinstveni matični broj", "matični broj", "personal identification number", "unique master citizen number");
WORDS(hr_oib, "oib", "o i b", "osobni identifikacijski broj", "osobnog identifikacijskog", "identifikacijski broj",
      "personal identification number", "croatian id");

/* Kinds, in the order of ID_KIND_*: what says "here comes a number of this kind", not merely what the text is about. */
static WORDS(kind_account, "account", "bank", "konto", "compte", "rekening", "cuenta", "conto");
static WORDS(kind_card, "card", "karte", "carte", "kaart", "carta", "kort");
static WORDS(kind_company, "company number", "company no", "company registration*", "registration number",
             "registration no", "organisation number", "organization number", "company id", "business id",
             "firmennummer*", "firmenbuchnummer*", "numéro d entreprise", "bedrijfsnummer*", "número de empresa",
             "numero rea");
static WORDS(kind_tax, "tax id", "tax no", "tax number", "tax code", "tax identification*", "taxpayer id",
             "taxpayer number", "tin", "tin no", "steuernummer*", "steuer nr", "steuerkennung*", "numéro fiscal",
             "n fiscal", "identifiant fiscal", "fiscaal nummer", "belastingnummer*", "número fiscal",
             "identificación fiscal", "numero fiscale", "codice fiscale");
static WORDS(kind_person, "national id", "national id number", "national identity number", "national identification*",
             "identity number", "identity card*", "identification number", "identification no", "identification code",
             "id number", "id no", "id nr", "id card", "personal number", "personal id", "personal identity number",
             "personal code", "personal identification*", "citizen id", "citizen number", "passport", "passport no",
             "passport number", "personenkennziffer*", "personenkennzahl*", "ausweisnummer*", "ausweis nr",
             "numéro d identité", "pièce d identité", "carte d identité", "identiteitsnummer*", "identiteitskaart*",
             "paspoortnummer*", "número de identidad", "documento de identidad", "número de identificación",
             "carta d identità", "numero di identità", "ssn");
static WORDS(kind_social, "social security number", "social security no", "social security", "social insurance number",
             "social insurance no", "ssn", "sozialversicherungsnummer*", "sv nummer", "sv nr", "sécurité sociale",
             "numéro de sécurité sociale", "sociaal nummer", "seguridad social", "número de la seguridad social",
             "previdenza sociale", "insurance number", "insurance no", "versicherungsnummer*", "versichertennummer*",
             "verzekeringsnummer*");
static WORDS(kind_health, "health insurance number", "health insurance no", "health card*", "medical record*",
             "patient id", "patient no", "patient number", "patientennummer*", "patienten id", "patiëntnummer*",
             "krankenversicherungsnummer*", "versichertennummer*", "numéro d assuré", "assurance maladie",
             "polisnummer*", "tarjeta sanitaria", "tessera sanitaria");

const char *const *const id_kind_words[ID_KINDS] = {id_words_kind_account, id_words_kind_card,   id_words_kind_company,
                                                    id_words_kind_tax,     id_words_kind_person, id_words_kind_social,
                                                    id_words_kind_health};
