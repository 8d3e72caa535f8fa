/* Words that say what stands beside them. */
#include "data/detect/internal.h"

const word_list words_cues[] = {
    {W_KEY_START, 0,
     "sk rk whsec ghp gho ghu ghs ghr github glpat glrt gldt glptt glcbt xoxb xoxp xoxa xoxr xoxs xoxe xapp ya29 "
     "gocspx hf "
     "api npm pypi dop doo dor sg shpat shpss shpca shppa sq0atp sq0csp dckr r8 gsk pplx xai nvapi tvly lin ntn figd "
     "pmak "
     "rubygems sntrys hvs hvb dp avns key glsa glc pat phc tskey sbp sb age eyj pld"},
    {W_SECRET, 1,
     "apikey api_key secretkey secret_key accesskey access_key accesstoken access_token refreshtoken refresh_token "
     "authtoken auth_token clientsecret client_secret apitoken api_token privatekey private_key sharedaccesskey "
     "accountkey "
     "account_key secret secretaccesskey signingkey signing_key encryptionkey encryption_key masterkey subscriptionkey "
     "idtoken sessiontoken session_token bearertoken geheimschlüssel api-schlüssel clave_api clé_api xapikey"},
    {W_SECRET, 0,
     "key token schlüssel clé clef clave chiave sleutel jeton klucz chave sig signature credential credentials"},
    {W_PASSWORD, 0,
     "password passwords passwd passwort kennwort passphrase pwd pass wachtwoord contraseña clave_de_acceso "
     "mot_de_passe "
     "motdepasse mdp parola_chiave password_di_accesso hasło haslo senha palavra-passe lösenord losenord adgangskode "
     "passord "
     "salasana heslo jelszó parolă lozinka userpassword dbpassword db_password passcode pincode zugangscode parola"},
    {W_IS, 0, "is ist lautet est es jest was war sera lauten luidt equals"},
    {W_BASIC, 0, "bearer basic"},
    {W_CLOUD, 0, "aws azure gcp amazon google s3 accountkey sharedaccesskey storage ec2 iam microsoft"},
    {W_VERSION, 0, "version v ver release build versione versión versie wersja revision rev firmware sdk"},
    {W_HONORIFIC, 0,
     "herr herrn frau hr fr dr prof professor dipl ing mag mr mrs ms miss mister mx sir lord lady rev mme mlle "
     "monsieur "
     "madame mademoiselle maître me mevrouw meneer mevr dhr mw mejuffrouw señor señora señorita sr sra srta don doña "
     "sig "
     "signor signora signorina sig.ra dott dottore dottoressa avv ing geom pan pani panie panna heer de_heer pana "
     "pan_dr inż mgr senhor "
     "senhora "
     "dona herr_dr frau_dr fru fröken hr pán paní úr kyrios kyria drs ir mr_dr familie family famille familia"},
    {W_HONORIFIC, 1,
     "fr me don ms sir pan pani pana ing mag miss mr don ir sr rev sig hr mw familie family famille familia m_l "
     "prof mister lord lady"},
    {W_NAME_CUE, 1,
     "vorname nachname familienname vollständiger_name firstname first_name lastname last_name surname full_name "
     "fullname "
     "given_name givenname family_name familyname customer_name customername client_name contact_name contactname "
     "employee_name patient_name patientname patient patientin employee username_full ansprechpartner "
     "ansprechpartnerin "
     "sachbearbeiter sachbearbeiterin kontoinhaber kontoinhaberin karteninhaber accountholder account_holder "
     "cardholder "
     "cardholder_name holder_name mieter mieterin vermieter vermieterin versicherter versicherte versicherungsnehmer "
     "versicherungsnehmerin arbeitnehmer arbeitnehmerin bewerber bewerberin applicant tenant landlord beneficiary "
     "payee "
     "titulaire bénéficiaire prénom nom_de_famille salarié salariée locataire bailleur interlocuteur destinataire "
     "achternaam voornaam werknemer werkneemster patiënt huurder verhuurder rekeninghouder contactpersoon "
     "nombre_completo apellidos apellido titular paciente empleado empleada arrendatario inquilino "
     "cognome nominativo intestatario paziente dipendente inquilino imię nazwisko imię_i_nazwisko pacjent pacjentka "
     "pracownik "
     "apelido nome_completo paciente titular contact_person contactperson author_name sender_name recipient_name "
     "displayname "
     "display_name passenger guest driver_name fahrer fahrerin zeuge zeugin witness"},
    {W_NAME_CUE, 0,
     "name namens kunde kundin kunden customer client contact kontakt nom naam klant contacto nombre cliente nome "
     "referente "
     "klient klientka user benutzer utilisateur gebruiker usuario utente owner inhaber author autor from von sender "
     "absender "
     "recipient empfänger to an cc assignee reporter manager mitarbeiter mitarbeiterin kollege kollegin attendees "
     "teilnehmer "
     "participants signed unterzeichnet gezeichnet gez signé ondertekend firmado firmato podpisano agent operator"},
    {W_GREETING, 1,
     "dear hello hi hey hallo liebe lieber liebes moin servus grüezi bonjour salut cher chère chers coucou beste hoi "
     "dag lieve "
     "hola estimado estimada querido querida ciao caro cara gentile egregio buongiorno cześć drogi droga szanowny "
     "szanowna "
     "olá caro prezado prezada hej kära hei goedemorgen goedemiddag thanks danke merci bedankt gracias grazie "
     "guten_tag "
     "guten_morgen good_morning good_afternoon geachte"},
    {W_GREETING, 2,
     "regards grüße grüßen grüsse grüssen gruß gruss cordialement sincerely cheers groet groeten groetjes saludos "
     "atentamente saluti cordialmente pozdrawiam pozdrowieniami atenciosamente cumprimentos hochachtungsvoll "
     "vriendelijke_groet "
     "met_vriendelijke_groet salutations bien_à_vous yours respectfully sentiments_distingués hilsen hälsningar mvg lg "
     "vg"},
    {W_BORN, 0,
     "born birth birthdate date_of_birth dateofbirth birth_date birthday dob geb geboren geborene geborener "
     "geburtsdatum "
     "geburtstag geburtsdat geburtstags né née naissance nacido nacida nacimiento nacio nació nato nata nascita "
     "geboortedatum "
     "geboortedag geboorte urodzony urodzona urodził urodziła urodzenia ur nascido nascida nascimento nasceu født "
     "fødselsdato "
     "fødselsdag född födelsedatum syntynyt syntymäaika narozen narozena narození narozenia született születési născut "
     "naștere rođen rođena rođenja roden dateofbirth datenaissance date_naissance ddn fecha_nacimiento"},
    {W_PHONE, 0,
     "phone tel telefon telefonnummer telefonisch telephone mobile mobil mobilnummer mobilfunk mobiltelefon handy "
     "handynummer "
     "cell cellphone fax faxnummer rufnummer durchwahl whatsapp hotline erreichbar anrufen téléphone téléphonique "
     "portable "
     "gsm telefoon telefoonnummer telefonisch mobiel mobiele bellen bel teléfono telefono móvil movil celular llamar "
     "llame "
     "cellulare cell chiamare telefonico komórka komórkowy telefonu numer_telefonu telemóvel telefone puhelin "
     "puhelinnumero telefonnummer mobilnr tlf tlfnr tfn phonenumber phone_number call ring callback rückruf joignable "
     "appeler appelez contactnummer sms signal"},
    {W_PLATE, 0,
     "kennzeichen kfz nummernschild autokennzeichen amtliches_kennzeichen plaque immatriculation immatriculé "
     "immatriculée "
     "kenteken kentekenplaat nummerplaat matrícula matriculado targa targato targata plate plates license_plate "
     "licence_plate "
     "number_plate registration_number numberplate rejestracyjny rejestracyjna tablica_rejestracyjna kontrollschild "
     "registreringsnummer licenseplate vehicle fahrzeug véhicule voertuig vehículo veicolo pojazd auto car voiture "
     "coche"},
    {W_ADDRESS, 0,
     "adresse address anschrift wohnhaft wohnt lives living residing resident adres woonachtig woont dirección "
     "domicilio "
     "domiciliado domiciliada domicilié domiciliée demeurant habite indirizzo residente abita adres_zamieszkania "
     "zamieszkały "
     "zamieszkała morada residência lieferadresse rechnungsadresse shipping billing_address wohnung straße street rue "
     "calle "
     "via ulica zustelladresse deliver homeaddress postanschrift verhuisd umgezogen"},
    {W_REF, 0,
     "invoice invoices rechnung rechnungsnummer rechnungsnr rg order orders bestellung bestellnummer bestellnr auftrag "
     "auftragsnummer auftragsnr artikel artikelnummer artikelnr ticket ticketnummer sendung sendungsnummer tracking "
     "isbn "
     "issn ean sku serial seriennummer facture commande référence référence_commande article colis factuur "
     "factuurnummer "
     "bestelnummer bestelling artikelnummer pakket factura pedido referencia artículo envío fattura ordine articolo "
     "spedizione faktura zamówienie zamówienia numer_zamówienia encomenda fatura aktenzeichen vorgang vorgangsnummer "
     "case "
     "ref reference referenz kundennummer part model modell batch charge lot version build commit hash din iso en "
     "chapter "
     "lieferschein lieferscheinnummer vertragsnummer policennummer po purchase_order shipment warehouse regal "
     "inventory product "
     "produkt produit producto prodotto versie seite page zeile line row"},
    {W_PERSON, 0,
     "patient patientin patienten employee employees mitarbeiter mitarbeiterin arbeitnehmer arbeitnehmerin kollege "
     "kollegin "
     "he she his her him er ihre seine seiner ihrem my mine mein meine meiner ich sohn tochter mutter vater ehemann "
     "ehefrau "
     "son daughter wife husband mother father brother sister kind kinder il elle sa ses mon ma mes fils fille mari "
     "femme "
     "patiente salarié salariée employé employée hij zij haar zijn mijn zoon dochter man vrouw medewerker medewerkster "
     "werknemer patiënt ella su hijo hija esposo esposa paciente empleado empleada marido mujer mi lui lei suo sua "
     "figlio figlia marito moglie paziente dipendente ona jego jej syn córka mąż żona pacjent pacjentka pracownik "
     "ele ela "
     "filho filha esposa bewerber bewerberin applicant candidate kandidat kandidatin candidat candidate kunde kundin "
     "customer client klant cliente i'm antragsteller antragstellerin versicherter versicherte betroffene betroffener"},
    {0, 0, NULL}};
