"""Debian's packages whose programs say much in many languages, by the licence of what they say.

That is the one their copyright files name for all files, or for the programs and their translations; where it is the GPL for
some of the programs, the package stands with the GPL. Packages with fewer than some forty sentences are left out.
"""

from __future__ import annotations

LIBREOFFICE_LANGUAGES = (
    "ar bg bn ca cs da de el es fa fi fr he hi hu id it ja ka ko lv nb nl nn pl pt pt-br ro ru sk sv th tr uk vi zh-cn"
).split()
MPL = [f"libreoffice-l10n-{code}" for code in LIBREOFFICE_LANGUAGES]
LGPL = """
    iso-codes libc-l10n libglib2.0-data libgtk-3-common libgtk-4-common libgdk-pixbuf2.0-common libgtksourceview-4-common
    libgtksourceview-5-common libgladeui-common libgegl-common libclutter-1.0-common libadwaita-1-0 libhandy-1-0
    libwnck-3-common libgdl-3-common libsoup-3.0-common libgsf-1-common libgoa-1.0-common libtepl-common
    glib-networking-common gconf2-common gvfs-common gcr at-spi2-common evolution-common evolution-data-server-common geary
    shotwell-common rygel orca
    kio kio-extras-data ktexteditor-data kexi-data itinerary marble-data plasma-nm baloo-kf5 akonadi-contacts-data
    libkf5akonadicalendar-data libkf5configwidgets-data libkf5khtml-data libkf5newstuff-data libkf5purpose-bin
    libkf5sysguard-data libkf5wallet-data libkf5xmlgui-data xdg-desktop-portal-kde
    libxfce4ui-common wx3.2-i18n minetest-data
    systemd polkitd pulseaudio flatpak fwupd openconnect libvirt-l10n libosinfo-l10n libexif12 libavahi-common-data
    libgstreamer1.0-0 libgstreamer-plugins-base1.0-0 gstreamer1.0-plugins-good
""".split()
CC_BY_SA = ["cataclysm-dda-data"]
PERMISSIVE = """
    accerciser aegisub-l10n libmypaint-common libpam-runtime p11-kit postgresql-15 postgresql-client-15 python3-django
    python3-django-allauth python3-django-horizon sudo terminology-data thonny xkb-data xz-utils
""".split()
GPL = """
    wesnoth-1.16-did wesnoth-1.16-dm wesnoth-1.16-dw wesnoth-1.16-ei wesnoth-1.16-httt wesnoth-1.16-l wesnoth-1.16-low
    wesnoth-1.16-nr wesnoth-1.16-sof wesnoth-1.16-sota wesnoth-1.16-sotbe wesnoth-1.16-thot wesnoth-1.16-trow
    wesnoth-1.16-tsg wesnoth-1.16-ttb wesnoth-1.16-utbs
    freeciv-data ufoai-misc manaplus-data aisleriot pychess tuxpaint-data gbrainy
    gimp-data inkscape darktable hugin-data gthumb-data digikam-data krita-l10n dia-common
    calligra-data calligrasheets-data kate5-data kf5-messagelib-data libkf5kdelibs4support-data kdevelop-l10n
    plasma-workspace-data plasma-desktop-data kwin-data kdeplasma-addons-data konqueror okular kmail korganizer akregator
    kleopatra kalarm kget k3b-i18n lokalize ktouch-data parley-data kturtle kig step
    gnome-control-center-data gnome-shell-common gnome-software-common gnome-builder nautilus-data epiphany-browser-data
    evince-common gedit-common anjuta-common brasero-common rhythmbox-data simple-scan deja-dup gnumeric-common planner-data
    cinnamon-l10n caja-common mate-control-center-common xfce4-settings
    gnucash-common kmymoney-common gramps gnumed-client lyx-common zim cherrytree rednotebook
    vlc-l10n pidgin-data hexchat-common liferea-data amule-common deluge-common phpmyadmin picard
    stardict-common bleachbit gparted-common synaptic bluefish-data
    coreutils findutils tar wget bash git gettext gnupg-l10n grub-common dpkg apt aptitude-common rpm-i18n
    util-linux-locales network-manager sssd-common libsane-common
""".split()
