"""Words and phrases that say nothing of a picture, as texts of the web's pictures have them.

Three kinds of text are meant. *Names of the medium*: that it is a picture is known. *Names of the
place in the page*: a banner, a thumbnail, slide 4. *What the page wants done*: click here, share.
None tells one picture from another, so a model learns nothing from the pair, and a query that
happens to be such a word would fill its draw with them.

Listed by hand, in the languages with most pages in Common Crawl, as far as their words are beyond
doubt; a word that can also be what the picture shows ("star", "arrow", "camera") is left out.
Everything goes through the normaliser before it is compared.
"""

# ruff: noqa: RUF001 - letters of other scripts are meant as they are
from __future__ import annotations

WORDS = """
image images img imgs picture pictures pic pics photo photos photograph photographs graphic graphics
illustration logo logos logotype icon icons avatars banner banners spacer placeholder
thumbnail thumbnails thumb thumbs loading loader preloader advertisement advertisements advert ads
slide slides slider slideshow carousel screenshot screenshots gallery figure fig page favicon
undefined null nan alt attachment
bild bilder foto fotos fotografie abbildung grafik vorschaubild platzhalter anzeige werbung galerie
symbolbild titelbild beitragsbild produktbild profilbild
imagen imágenes fotografía fotografías logotipo icono iconos miniatura anuncio publicidad cargando
galería imagem imagens ícone ícones publicidade carregando galeria
photographie photographies icône icônes vignette bannière publicité chargement
immagine immagini fotografia icona icone pubblicità caricamento galleria
afbeelding afbeeldingen advertentie bilde billede billeder kuva kuvat kép képek
obraz obrazek obrazy zdjęcie zdjęcia ikona reklama obrázek obrázky fotka fotky
изображение изображения картинка картинки фото фотография фотографии логотип иконка баннер реклама
зображення світлина снимка
resim resimler fotoğraf görsel görseli simge reklam εικόνα φωτογραφία λογότυπο
图片 图像 照片 图标 标志 头像 广告 缩略图 圖片 圖像 圖示 廣告 縮圖
画像 写真 ロゴ アイコン バナー サムネイル イメージ 広告 이미지 사진 로고 아이콘 배너 광고 썸네일
صورة صور شعار أيقونة تصویر عکس لوگو تमना छवि फोटो gambar ikon ảnh รูปภาพ รูป ภาพ
"""
"""Words of a text that say nothing, alone, together, or with a number (``image 3``)."""

TITLES = "avatar untitled unnamed"
"""Such words that are titles, too: they say something beside a year (``Avatar (2009)``)."""

NEUTRAL = """
a an the of this at on by for and or in no new main default full small large medium big mini tiny
original final edited copy scaled resized cropped optimized compressed web mobile desktop retina
view zoom hero header footer cover background bg featured feature post blog article news product
item gallery profile user author company site website brand client partner sponsor member team
home am pm um uhr kopie kopia copia copie
de del da do la le les el il der die das des ein eine von zu un une uno una het een d l
écran pantalla tela schermo экрана ekranu à às las alle om kl o в 上午 下午
"""
"""Words that say nothing beside one of ``WORDS`` (``the product image``), but may alone."""

NAMES = """
img dsc dscn dscf dscs imgp pict kimg cimg hpim sany pxl mvimg gopr fbimg mmexport
screenshot screenshots scan scanned bildschirmfoto schermata captura schermafbeelding skärmavbild
skjermbilde skærmbillede zrzut снимок スクリーンショット 스크린샷 截屏 截图 屏幕截图 屏幕快照
微信图片 微信截图 qq图片 qq截图
"""
"""What cameras, phones and programs call their files, before a number (``DSC00012``)."""

PRODUCTS = """
dji gopro wp vid screen shot capture snapshot whatsapp kakaotalk shutterstock adobestock gettyimages
istock istockphoto depositphotos dreamstime fotolia alamy pexels pixabay
"""
"""The same, of words that are more than that: among other words (``DJI Mini 2``, ``WhatsApp logo``)
they are a name only with the digits of a date or an id.
"""

UNSPACED_NAMES = "mg sam cam gh fb received signal telegram snapchat burst pano hdr ekran"
"""The same, where the text is one word: ``_MG_1234``, but not ``500 mg``."""

UNSPACED_NEUTRAL = (
    "n b s m z k c q h w v e x p t rs px xs xl xxl wa scaled rotated min thumb cropped hd uhd rgb "
    "white black grey gray dark light blue green red color colour transparent horizontal vertical "
    "inverted"
)
"""What else they have in them: ``12345678_101_n``, ``photo-e1597853-300x200``, ``logo-white``."""

ENDINGS = "jpg jpeg jpe jfif png gif webp bmp tif tiff svg avif heic heif ico"
"""Endings of pictures' names; none is longer than four letters."""

PHRASES = """
click here
click to enlarge
click to view
click to zoom
click image to enlarge
click for more
read more
learn more
see more
show more
view more
find out more
more info
more information
continue reading
details
view details
view larger image
view full size
enlarge
enlarge image
download
download now
print
email
e-mail
share
share this
share on facebook
share on twitter
share on x
share on linkedin
share on pinterest
share on whatsapp
share on reddit
share via email
tweet
pin it
follow us
follow us on facebook
follow us on twitter
follow us on instagram
like
facebook
twitter
instagram
linkedin
pinterest
youtube
rss
rss feed
close
open
menu
search
home
back
back to top
next
previous
prev
play
play video
play button
pause
submit
subscribe
sign up
sign in
log in
login
register
buy now
shop now
add to cart
cart
shopping cart
checkout
add to wishlist
quick view
sale
new
hot
contact us
about us
no image
no image available
image not available
image not found
no photo available
image coming soon
photo coming soon
image may contain text
no photo description available
no image description available
no automatic alt text available
no alt text provided for this image
no alternative text description for this image
alt text
image alt text
image alt
image title
image description
image caption
photo caption
photo title
tracking pixel
transparent pixel
1x1
1px
screen shot
stock photo
stock image
next slide
previous slide
next image
previous image
next photo
previous photo
menu icon
search icon
close icon
play icon
menu button
search button
close button
next button
previous button
coming soon
not available
please wait
advertise here
sponsored
skip to content
hier klicken
mehr lesen
weiterlesen
mehr erfahren
mehr
zum vergrößern klicken
bild vergrößern
kein bild verfügbar
auf facebook teilen
teilen
startseite
zurück
weiter
schließen
suche
warenkorb
leer más
ver más
más información
seguir leyendo
haz clic aquí
haga clic aquí
clic para ampliar
compartir
compartir en facebook
compartir en twitter
sin imagen
imagen no disponible
inicio
siguiente
anterior
cerrar
buscar
lire la suite
lire plus
en savoir plus
voir plus
cliquez ici
cliquer ici
cliquez pour agrandir
agrandir
partager
partager sur facebook
pas d'image
accueil
suivant
précédent
fermer
rechercher
leggi tutto
leggi di più
scopri di più
continua a leggere
clicca qui
condividi
condividi su facebook
immagine non disponibile
chiudi
cerca
leia mais
saiba mais
veja mais
ver mais
clique aqui
compartilhar
compartilhar no facebook
partilhar no facebook
imagem não disponível
fechar
lees meer
lees verder
meer informatie
klik hier
delen op facebook
läs mer
klicka här
dela på facebook
læs mere
les mer
lue lisää
czytaj więcej
czytaj dalej
więcej
kliknij tutaj
udostępnij na facebooku
číst více
více
klikněte zde
tovább
bővebben
citește mai mult
читать далее
читать дальше
подробнее
нажмите здесь
нажмите чтобы увеличить
поделиться
поделиться в facebook
нет фото
нет изображения
увеличить
закрыть
поиск
главная
назад
вперед
читати далі
детальніше
devamını oku
devamı
daha fazla
tıklayın
buraya tıklayın
facebook'ta paylaş
paylaş
διαβάστε περισσότερα
阅读更多
了解更多
查看更多
点击这里
点击查看
点击放大
更多
下载
分享
閱讀更多
続きを読む
もっと見る
詳細はこちら
こちらをクリック
クリックで拡大
더 보기
자세히 보기
여기를 클릭하세요
اقرأ المزيد
المزيد
اضغط هنا
مشاركة
और पढ़ें
baca selengkapnya
klik di sini
xem thêm
đọc thêm
อ่านต่อ
"""
"""Whole texts that say nothing, one a line: what the page wants done, and controls of the page."""

NAMESAKES = """
figure 8
figure of 8
the big picture
big picture
"""
"""Whole texts that are kept though each of their words says nothing, one a line."""


def lines(text: str) -> list[str]:
    """Return the lines of a list that has one entry a line."""
    return [line for line in text.splitlines() if line]
