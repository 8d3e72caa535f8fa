/* Towns, words of streets, months, and capital words that are no names. */
#include "data/detect/internal.h"

const word_list words_places[] = {
    {W_CITY, 0,
     "berlin hamburg münchen munich köln cologne frankfurt stuttgart düsseldorf leipzig dortmund essen bremen dresden "
     "hannover "
     "nürnberg duisburg bochum wuppertal bielefeld bonn münster karlsruhe mannheim augsburg wiesbaden gelsenkirchen "
     "mönchengladbach braunschweig chemnitz kiel aachen halle magdeburg freiburg krefeld lübeck oberhausen erfurt "
     "mainz rostock "
     "kassel saarbrücken potsdam oldenburg heidelberg darmstadt regensburg würzburg ingolstadt ulm göttingen trier "
     "jena "
     "konstanz passau bamberg bayreuth koblenz flensburg schwerin wien vienna graz linz salzburg innsbruck klagenfurt "
     "zürich "
     "zurich genf genève geneva basel bern lausanne luzern winterthur lugano vaduz paris marseille lyon toulouse nice "
     "nantes "
     "strasbourg montpellier bordeaux lille rennes reims toulon grenoble dijon angers nîmes villeurbanne brest tours "
     "amiens "
     "limoges annecy perpignan metz besançon orléans rouen mulhouse caen nancy avignon poitiers versailles bruxelles "
     "brussel "
     "brussels antwerpen anvers gent gand brugge bruges liège luik namur leuven louvain mechelen charleroi mons "
     "hasselt "
     "amsterdam rotterdam utrecht eindhoven tilburg groningen almere breda nijmegen enschede haarlem arnhem zaandam "
     "amersfoort "
     "apeldoorn hoofddorp maastricht leiden dordrecht zoetermeer zwolle deventer delft alkmaar venlo leeuwarden "
     "hilversum "
     "london manchester birmingham leeds glasgow sheffield bradford edinburgh liverpool bristol cardiff belfast "
     "leicester "
     "coventry nottingham newcastle southampton portsmouth brighton plymouth reading derby wolverhampton swansea "
     "aberdeen oxford "
     "cambridge york exeter norwich luton dublin cork limerick galway waterford madrid barcelona valencia sevilla "
     "zaragoza "
     "málaga murcia palma bilbao alicante córdoba valladolid vigo gijón granada vitoria elche oviedo badalona "
     "cartagena jerez "
     "pamplona santander almería burgos salamanca albacete logroño badajoz huelva lleida tarragona león cádiz jaén "
     "girona "
     "lisboa lisbon porto braga coimbra funchal setúbal faro aveiro roma rome milano milan napoli naples torino turin "
     "palermo "
     "genova bologna firenze florence bari catania venezia venice verona messina padova trieste brescia parma prato "
     "modena "
     "perugia ravenna livorno cagliari rimini bergamo vicenza bolzano trento warszawa warsaw kraków krakow łódź "
     "wrocław poznań "
     "gdańsk szczecin bydgoszcz lublin katowice białystok gdynia częstochowa radom toruń praha prague brno ostrava "
     "plzeň "
     "bratislava košice budapest debrecen szeged bucurești bucharest cluj timișoara iași sofia plovdiv varna zagreb "
     "split "
     "rijeka ljubljana maribor beograd belgrade sarajevo athens athina thessaloniki nicosia valletta copenhagen "
     "københavn "
     "aarhus odense aalborg stockholm göteborg malmö uppsala västerås örebro linköping oslo bergen trondheim stavanger "
     "helsinki espoo tampere vantaa turku oulu reykjavík tallinn tartu riga vilnius kaunas luxembourg luxemburg monaco "
     "kyiv "
     "moscow istanbul ankara york boston chicago tokyo"},
    {W_STREET, 1, /* the word stands first */
     "rue bd bld quai chemin impasse allée allées faubourg sentier venelle esplanade montée "
     "ruelle "
     "via viale piazza piazzale corso vicolo largo strada lungomare contrada calle avenida avda paseo plaza pza carrer "
     "camino "
     "ronda travesía glorieta callejón carretera rambla passeig rua travessa praça alameda estrada praceta beco ulica "
     "ul aleja "
     "al osiedle os plac pl rynek ulice náměstí nám třída strada bulevardul calea ulitsa leof odos"},
    {W_STREET, 4, "avenue boulevard place square passage cours"}, /* both are met */
    {W_STREET, 2,                                                 /* it stands last, the number first */
     "street road lane drive court close terrace gardens crescent grove mews parade way st rd ave "
     "blvd ln "
     "walk row hill"},
    {W_STREET, 3, /* it stands last, the number behind it */
     "straße strasse str weg allee platz gasse ring damm ufer chaussee promenade straat laan plein gracht kade dijk "
     "singel "
     "weg dreef markt gata gatan vägen väg vej gade vei katu tie utca út tér"},
    {W_TOWN_LINK, 0, "am an ob im bei der den de la le les lès sur sous en aan bij upon on del di nad pod du"},
    {W_MONTH, 1,
     "januar january jan jänner janvier januari enero ene gennaio gen stycznia styczeń janeiro januára ledna ianuarie"},
    {W_MONTH, 2,
     "februar february feb feber février fév fevrier februari febrero febbraio lutego luty fevereiro fev února"},
    {W_MONTH, 3, "märz maerz march mar mars maart marzo marca marzec março března mrz"},
    {W_MONTH, 4, "april apr avril avr abril abr aprile kwietnia kwiecień abril dubna aprilie"},
    {W_MONTH, 5, "mai may mei mayo maggio mag maja maj maio května"},
    {W_MONTH, 6, "juni june jun juin junio giugno giu czerwca czerwiec junho června iunie"},
    {W_MONTH, 7, "juli july jul juillet juil julio luglio lug lipca lipiec julho července iulie"},
    {W_MONTH, 8, "august aug août aout augustus agosto ago sierpnia sierpień augusti srpna"},
    {W_MONTH, 9, "september sep sept septembre septiembre settembre set września wrzesień setembro září septembrie"},
    {W_MONTH, 10,
     "oktober october okt oct octobre octubre ottobre ott października październik outubro října octombrie"},
    {W_MONTH, 11, "november nov novembre noviembre listopada listopad novembro listopadu noiembrie"},
    {W_MONTH, 12,
     "dezember december dez dec déc décembre diciembre dic dicembre grudnia grudzień dezembro prosince decembrie"},
    {W_COMPANY, 0,
     "gmbh ag kg ohg ug gbr kgaa mbh ltd limited inc llc llp plc corp corporation company co sa sas sarl sasu eurl bv "
     "nv vof "
     "srl spa snc sl slu lda oy ab aps as asa sro zrt kft doo ood eood stiftung verein group gruppe groupe grupo "
     "gruppo "
     "holding holdings partners söhne soehne sons brothers gebrüder associates consulting solutions services systems "
     "technologies bank sparkasse versicherung versicherungen insurance assurances seguros university universität "
     "universiteit université universidad university hospital klinikum krankenhaus hospital clinic klinik school "
     "schule "
     "college institut institute foundation logistics logistik bakery bäckerei apotheke hotel restaurant airlines "
     "motors "
     "verlag press media studios labs software industries sp"},
    {W_NOT_NAME, 0,
     "monday tuesday wednesday thursday friday saturday sunday montag dienstag mittwoch donnerstag freitag samstag "
     "sonnabend "
     "sonntag lundi mardi mercredi jeudi vendredi samedi dimanche maandag dinsdag woensdag donderdag vrijdag zaterdag "
     "zondag "
     "lunes martes miércoles jueves viernes sábado domingo lunedì martedì mercoledì giovedì venerdì sabato domenica "
     "germany deutschland france frankreich spain españa italy italia netherlands nederland niederlande belgium "
     "belgique "
     "belgië poland polska portugal austria österreich switzerland schweiz suisse europe europa european union america "
     "english german french dutch spanish italian polish deutsch französisch "
     "the this that these those there then they he she it we you i our your my his her its their a an and or but if "
     "when "
     "where what who why how which while with without for from to at by on in of as is are was were be been not no yes "
     "please thank thanks dear hello hi best kind regards sincerely yours team all everyone sir madam customer client "
     "support "
     "service sales manager director president minister chief officer engineer developer department office head "
     "account "
     "accounts billing invoice order contract agreement payment delivery shipment product products project report "
     "meeting "
     "der die das dem den des ein eine einen einem einer und oder aber wenn weil dass wie was wer wo warum ich du er "
     "sie es "
     "wir ihr ihnen ihre ihren ihrem ihrer mein dein sein unser bitte danke vielen liebe lieber herren damen kollegen "
     "kolleginnen kunde kunden kundin kundennummer rechnung vertrag bestellung lieferung auftrag angebot termin "
     "zahlung betrag "
     "konto datum name vorname nachname team zusammen sehr geehrte geehrter im am an auf aus bei für mit nach seit von "
     "vor "
     "über unter zwischen sowie auch noch nur nicht kein keine ja nein hier dort heute morgen gestern direktor "
     "präsident "
     "minister leiter leiterin geschäftsführer vorstand mitarbeiter kollege kollegin professor doktor nachbar "
     "je tu il elle nous vous ils elles le la les un une des du au aux et ou mais si que qui quoi dont où ce cet cette "
     "ces "
     "mon ton son notre votre leur bonjour bonsoir merci madame monsieur client cliente clients facture contrat "
     "commande "
     "livraison équipe service directeur directrice président présidente objet pour par avec sans sous sur dans en "
     "de het een en of maar als dat die dit deze wij jij hij zij ik u uw mijn onze hun geachte beste groet klant "
     "factuur "
     "bestelling contract levering team directeur graag voor met naar van bij op in uit over "},
    {W_NOT_NAME, 0,
     "el los las una unos unas y o pero si que quien como cuando donde este esta estos ese yo tú él ella nosotros "
     "usted "
     "ustedes su sus mi estimado estimada hola gracias saludos cliente factura contrato pedido entrega equipo señor "
     "señora "
     "director directora presidente para por con sin sobre en "
     "gli lo un uno una e ed o ma se che chi come quando dove questo questa io lui lei noi voi loro gentile egregio "
     "cliente "
     "fattura contratto ordine consegna team direttore per con senza su in "
     "pan pani państwo szanowny klient faktura umowa zamówienie zespół dyrektor prezes "
     "street church castle park museum airport station tower bridge river lake island mountain north south east west "
     "central "
     "new old saint st great upper lower city town county state national international general public private royal "
     "federal "
     "street garden gardens house home hotel shop store market centre center building floor room "
     "api http https json xml html css sql url uri id ids pdf csv utf ascii linux windows macos android ios google "
     "amazon "
     "microsoft apple facebook meta openai anthropic github gitlab docker kubernetes python java javascript rust go "
     "mercedes benz porsche bosch siemens ford toyota renault peugeot citroën volkswagen audi opel bmw lufthansa "
     "telekom "
     "note notes subject date attachment attachments page chapter section table figure appendix version error warning "
     "info "
     "debug status true false null none ok pending active closed open new draft final total net gross amount "
     "betreff anlage anlagen seite kapitel abschnitt tabelle abbildung anhang fehler warnung hinweis summe netto "
     "brutto "
     "award prize theorem algorithm effect law act disease syndrome scale constant method test"},
    {0, 0, NULL}};
