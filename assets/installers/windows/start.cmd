{#- What WinPE does once it is up. No block in parentheses sets a variable and reads it: cmd
    fills in variables when it reads a block. There is no timeout.exe in WinPE, so ping waits. -#}
{%- for name in ["share", "share_user", "image"] -%}
{%- set value = vars | get(key=name, default="") | str -%}
{%- for live in ['"', "%", "&", "<", ">", "|", "^", "
"] -%}
{%- if value is containing(pat=live) -%}
{{ throw(message="vars." ~ name ~ " has a character that means something to cmd: one of \" % & < > | ^ or a line break") }}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if secrets.share_password is defined and secrets.share_password is containing(pat='"') -%}
{{ throw(message="the secret share_password has a quotation mark, which cmd cannot pass on") }}
{%- endif -%}
{%- if tree.url is containing(pat="%") -%}
{{ throw(message="the medium's name has a character that is a % in URLs, which cmd cannot pass on: give it a name of letters and digits") }}
{%- endif -%}
{%- if unattended and vars.share is undefined -%}
{%- if parts.curl is undefined -%}
{{ throw(message="WinPE cannot fetch the image by HTTP by itself: give the profile parts = { curl = \"NAME/curl.exe\" }, the curl.exe of a Windows 10 1803 or later, or vars.share, a share with the medium's files") }}
{%- elif trees.wim is undefined and trees.esd is undefined and trees.swm is undefined -%}
{{ throw(message="the medium has no sources/install.wim, .esd or .swm") }}
{%- endif -%}
{%- endif -%}
@echo off
rem {{ machine.name }}, by profile {{ profile.name }}
cd /d %SystemRoot%\System32
echo pilotlight: starting WinPE
wpeinit
for %%d in (*.inf) do drvload %%d
wpeutil InitializeNetwork
wpeutil DisableFirewall
{%- if unattended %}

rem Who cannot report would be installed again and again: that is tried before anything is touched.
set tries=0
:network
call :say winpe && goto reported
set /a tries+=1
if %tries% geq 30 goto silent
ping -n 6 127.0.0.1 >nul
goto network
:silent
echo pilotlight: {{ server.host }} cannot be reached by HTTP from here: no driver for the network card, or nothing in this WinPE that speaks HTTP. No disk was touched.
cmd /k
exit /b 1
:reported
{%- if vars.share is defined %}
call :mount || (call :fail share "the share {{ vars.share }} cannot be mounted. No disk was touched." & exit /b 1)
{%- endif %}
if exist pre.cmd call pre.cmd

rem The disk, all of it: whatever was on it is gone.
set disk=
for /f %%d in ('cscript //nologo //E:vbscript pick.vbs') do set disk=%%d
if not defined disk (call :fail no-disk "there is no disk that this installation may write to: see above" & exit /b 1)
wpeutil UpdateBootInfo
set firmware=
for /f "tokens=3" %%t in ('reg query HKLM\System\CurrentControlSet\Control /v PEFirmwareType') do set firmware=%%t
if "%firmware%"=="0x2" goto gpt
if "%firmware%"=="0x1" goto mbr
call :fail firmware "WinPE does not tell whether this is BIOS or UEFI. No disk was touched." & exit /b 1
:gpt
set kind=UEFI
>X:\disk.txt (
    echo select disk %disk%
    echo clean
    echo convert gpt
    echo create partition efi size=300
    echo format quick fs=fat32 label=System
    echo assign letter=S
    echo create partition msr size=16
    echo create partition primary
    echo format quick fs=ntfs label=Windows
    echo assign letter=W
)
goto partition
:mbr
set kind=BIOS
>X:\disk.txt (
    echo select disk %disk%
    echo clean
    echo convert mbr
    echo create partition primary size=500
    echo format quick fs=ntfs label=System
    echo assign letter=S
    echo active
    echo create partition primary
    echo format quick fs=ntfs label=Windows
    echo assign letter=W
)
:partition
echo pilotlight: disk %disk% for %kind%
diskpart /s X:\disk.txt || (call :fail diskpart "diskpart failed: see above" & exit /b 1)

set parts=
{%- if vars.share is defined %}
set image=
if exist Z:\sources\install.wim set image=Z:\sources\install.wim
if exist Z:\sources\install.esd set image=Z:\sources\install.esd
if exist Z:\sources\install.swm set image=Z:\sources\install.swm
if exist Z:\sources\install.swm set parts=/SWMFile:Z:\sources\install*.swm
if not defined image (call :fail no-image "the share has no sources\install.wim, .esd or .swm" & exit /b 1)
{%- else %}
rem The image lies where Windows will, until it is applied.
mkdir W:\pilotlight
{%- if trees.wim is defined %}
set image=W:\pilotlight\install.wim
call :fetch {{ trees.wim }} %image% || (call :fail fetch "the image could not be fetched" & exit /b 1)
{%- elif trees.esd is defined %}
set image=W:\pilotlight\install.esd
call :fetch {{ trees.esd }} %image% || (call :fail fetch "the image could not be fetched" & exit /b 1)
{%- else %}
set image=W:\pilotlight\install.swm
set parts=/SWMFile:W:\pilotlight\install*.swm
call :fetch {{ trees.swm }} %image% || (call :fail fetch "the image could not be fetched" & exit /b 1)
rem The others are counted from 2; how many there are, the last tells by not being there.
set part=2
:part
curl.exe -fsI -o NUL {{ trees.sources }}/install%part%.swm || goto whole
call :fetch {{ trees.sources }}/install%part%.swm W:\pilotlight\install%part%.swm || (call :fail fetch "the image could not be fetched" & exit /b 1)
set /a part+=1
if %part% leq 99 goto part
:whole
{%- endif %}
{%- endif %}

{%- set image = vars | get(key="image", default="1") | str %}
{%- set letters = image | replace(from="0", to="") | replace(from="1", to="") | replace(from="2", to="") | replace(from="3", to="") | replace(from="4", to="") | replace(from="5", to="") | replace(from="6", to="") | replace(from="7", to="") | replace(from="8", to="") | replace(from="9", to="") %}
echo pilotlight: applying {{ image }} of %image%
dism /Apply-Image /ImageFile:%image% %parts% {% if letters %}/Name:"{{ image }}"{% else %}/Index:{{ image }}{% endif %} /ApplyDir:W:\ || (call :fail dism "the image could not be applied: see above" & exit /b 1)
for %%d in (*.inf) do dism /Image:W:\ /Add-Driver /Driver:%%d
bcdboot W:\Windows /s S: /f %kind% || (call :fail bcdboot "the boot files could not be written: see above" & exit /b 1)

rem Windows looks here for its answers when it starts for the first time.
mkdir W:\Windows\Panther
copy /y autounattend.xml W:\Windows\Panther\unattend.xml || (call :fail answers "the answers could not be copied" & exit /b 1)
if not exist post.cmd goto posted
mkdir W:\Windows\Setup\Scripts
copy /y post.cmd W:\Windows\Setup\Scripts\SetupComplete.cmd
:posted
if exist W:\pilotlight rmdir /s /q W:\pilotlight

rem The last word: this machine boots its own disk from now on. A report that is lost means
rem another wipe: it is tried for 15 minutes and more.
set tries=0
:done
call :say done && goto told
set /a tries+=1
if %tries% geq 90 goto told
ping -n 11 127.0.0.1 >nul
goto done
:told
wpeutil reboot
exit /b 0
{%- else %}
{%- if vars.share is defined %}
call :mount || goto nothing
Z:\setup.exe
wpeutil reboot
exit /b 0
:nothing
echo pilotlight: the share {{ vars.share }} cannot be mounted.
{%- else %}
echo pilotlight: Windows Setup wants the medium's files, which WinPE cannot read by HTTP. Either
echo   vars.share names a share that has them, or the profile has settings and parts = curl.
{%- endif %}
cmd /k
exit /b 1
{%- endif %}

{%- if unattended %}

rem call :fail WORD "why": tells it, and leaves a prompt to somebody who looks.
:fail
echo pilotlight: %~2
call :say failed?%~1
cmd /k
exit /b 0

rem call :say WORD: a report, by curl where the user gave one.
:say
if exist curl.exe curl.exe -fsS -m 10 -o NUL {{ report }}/%~1 && exit /b 0
cscript //nologo //E:vbscript get.vbs {{ report }}/%~1
exit /b
{%- if vars.share is undefined %}

rem call :fetch URL FILE
:fetch
echo pilotlight: fetching %~1
curl.exe -fS --retry 10 --retry-delay 5 --retry-connrefused -C - -o %~2 %~1
exit /b
{%- endif %}
{%- endif %}
{%- if vars.share is defined %}

rem The share is not always there at once: the network card's link comes up late.
:mount
set tries=0
:again
net use Z: "{{ vars.share }}"
{%- if secrets.share_password is defined %} "{{ secrets.share_password | replace(from="%", to="%%") }}"{% endif %}
{%- if vars.share_user is defined %} /user:"{{ vars.share_user }}"{% endif %} && exit /b 0
set /a tries+=1
if %tries% geq 12 exit /b 1
ping -n 6 127.0.0.1 >nul
goto again
{%- endif %}
