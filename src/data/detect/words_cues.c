/* Words that say what stands beside them. */
#include "data/detect/internal.h"

const word_list words_cues[] = {
    {W_KEY_START, 0,
     "sk rk whsec ghp gho ghu ghs ghr github glpat glrt gldt glptt glcbt xoxb xoxp xoxa xoxr xoxs xoxe xapp ya29 "
     "gocspx hf "
     "api npm pypi dop doo dor sg shpat shpss shpca shppa sq0atp sq0csp dckr r8 gsk pplx xai nvapi tvly lin ntn figd "
     "pmak "
     "rubygems sntrys hvs hvb dp avns key glsa glc pat phc tskey sbp sb age eyj"},
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
    {W_IS, 0, "is ist lautet est es è jest are was war sera lauten luidt é är er on equals be sind"},
    {W_BASIC, 0, "bearer basic"},
    {W_CLOUD, 0, "aws azure gcp amazon google s3 accountkey sharedaccesskey storage ec2 iam microsoft"},
    {W_VERSION, 0, "version v ver release build versione versión versie wersja revision rev firmware sdk"},
    {0, 0, NULL}};
