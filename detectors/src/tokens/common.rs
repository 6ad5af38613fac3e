//! What stands everywhere: words of code, configuration and prose, in which no anchor should lie.
//!
//! The rarity of single characters says little about four in a row: `path` is rarer by its letters than `sk-a`, and a hundred
//! times as common. So the choice of an anchor counts the words below that it would be met in.

use std::sync::LazyLock;

use super::anchors::symbol_of;
use crate::kernel::POSITIONS;

/// Not all common words, but those that shapes share characters with, and enough of the others for their ends and beginnings.
const WORDS: &str = "the and that this with from have which there their would other about should could where these \
    when what your will into than then them been some only over also after first most such because before between \
    each more through under while being both here must does same part used using user users use name names value values \
    data date time type types typeof node nodes test tests testing _test test_ path paths file files filename http https \
    :// //www .com .org .net .html .json .yaml .toml = \"' `default defined define undefined function return returns \
    const static public private protected class classes import export module modules package packages require required \
    resource resources source sources service services server servers session sessions version versions region regions \
    main master domain token tokens secret secrets key keys key_ _key api_ _api api- -api apikey app_ app. apps \
    application access account accounts client clients client_ _client connection connections config configuration \
    password passwd user_ _user host hosts localhost port ports project projects process processor product products \
    production prod_ _prod live_ _live provider providers proxy public_ script scripts scope scale scalar scan \
    schema select selected service_account session_ set_ _set get_ _get pattern patterns patch ion_ tion ing_ ment est_ \
    tool_ tools tool_use age_ page_ image images message messages content contents context contexts string strings number \
    numbers object objects array arrays boolean null none true false error errors exception result results response \
    request requests index indices length size width height color colors style styles view views preview item items list \
    lists text label title description comment comments option options parameter parameters params argument arguments \
    method methods property properties element elements event events state status update updates delete create created \
    insert table tables column columns query queries response order group groups role roles policy permission permissions \
    perm django flask redis azure google amazon aws_ github gitlab docker kubernetes kind metadata namespace spec template \
    templates worker workers work working space spaces workspace manager management mode model models network networks \
    duct conduct introduction base basic batch binary block body build button buffer byte bytes cache call called case \
    change channel char check child children code command common compile component container control copy core count \
    current custom database debug decode device directory disable display document download draw edit email empty enable \
    encode encoding end engine entry env environment equal example execute expected export extend extra factory feature \
    field fields filter final find flag float folder font form format found frame free full generate generator global \
    handle handler hash header headers help hidden history home hook icon identity ignore include info init input \
    instance integer interface internal invalid issue job json kernel label language last layer layout level library \
    license limit line lines link load loader local location lock log_ logging login loop map_ mask match matrix max_ \
    media member memory menu merge metric min_ mock mount move multiple native new_ next normal notification note \
    null offset open operation operator output override owner padding panel parent parse parser pass payload performance \
    platform player plugin point pool position post prefix previous print priority product profile program progress \
    promise prototype publish push random range rate read readme record reference register release remote remove render \
    replace report repository reset resolve rest retry root route router row_ rule run_ runtime sample save schedule \
    screen search section security segment send sequence serial setting shape share shell should show sign simple single \
    site slice slot sort span split stack stage standard start step stop storage store stream struct style sub_ submit \
    success suffix support switch symbol sync system tag_ target task tensor terminal theme thread timeout timestamp title \
    toggle total trace track transaction transform translate tree trigger tuple unit unknown url_ uuid valid validate \
    variable vector verify video visible visit wait warning window wrapper write xml_ zone sha256 sha512 sha1 md5 utf-8 \
    base64 0000 1111 2023 2024 2025 0.5 0.1 ==== ---- **** //// .... ____ #### aaaa bbbb cccc dddd eeee ffff \
    \"id\" \"name\" \"type\" \"text\" \"role\" \"user\" \"content\": \"input\" \"value\": == != => -> && || += */ /* // \
    if (!  = [  = {  () { }; }, ); ],  \": \"  \", \" \\n  \\\" <div </div <span </td> <td> <li> class=\" href=\" src=\"";

/// The rows of symbols of [`WORDS`] that begin with `first`. Blanks between words are in none.
pub(super) fn grams(first: u8) -> &'static [[u8; POSITIONS]] {
    let begin = GRAMS.partition_point(|gram| gram[0] < first);
    let end = GRAMS.partition_point(|gram| gram[0] <= first);
    GRAMS.get(begin..end).unwrap_or_default()
}

static GRAMS: LazyLock<Vec<[u8; POSITIONS]>> = LazyLock::new(|| {
    let mut grams: Vec<[u8; POSITIONS]> = WORDS
        .split_ascii_whitespace()
        .flat_map(|word| {
            let symbols: Vec<u8> = word.bytes().map(symbol_of).collect();
            symbols
                .windows(POSITIONS)
                .filter_map(|four| four.first_chunk().copied())
                .collect::<Vec<_>>()
        })
        .collect();
    grams.sort_unstable();
    grams.dedup();
    grams
});
